"""What can the command ``sb3-dqs`` do? Known without rl-zoo3, so that its help needs no extra."""

# Scripts of rl-zoo3, by their names on the command line
SCRIPTS = {
    "train": "rl_zoo3.train",
    "enjoy": "rl_zoo3.enjoy",
    "record_video": "rl_zoo3.record_video",
    "plot_train": "rl_zoo3.plots.plot_train",
    "plot_from_file": "rl_zoo3.plots.plot_from_file",
    "all_plots": "rl_zoo3.plots.all_plots",
}

USAGE = f"""usage: sb3-dqs <script> [arguments of the script]

The scripts of rl-zoo3, with DQS as --algo dqs, and as published as --algo dqs_paper, beside its own algorithms:
{", ".join(SCRIPTS)} (pip install 'sb3-dqs[zoo]').
And export: the policy of a trained model as one ONNX file (pip install 'sb3-dqs[export]').
For the arguments of one: sb3-dqs <script> --help

    sb3-dqs train --algo dqs --env Pendulum-v1 -P
    sb3-dqs enjoy --algo dqs --env Pendulum-v1
    sb3-dqs export logs/dqs/Pendulum-v1_1
    sb3-dqs train --algo dqs --env Pendulum-v1 -n 5000 -optimize --n-trials 10 --study-name pendulum

Beyond the zoo: settings of dqs and dqs_paper come from this package unless --conf-file names others; -optimize and --trial-id
of dqs keep their study in the log folder (<folder>/dqs/studies.log) unless --storage names another place; a database as
--storage has heartbeats, see sb3-dqs train --help."""
