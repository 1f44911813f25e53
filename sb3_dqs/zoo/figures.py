"""Where are the plots on a machine without a screen? In files, where the zoo would show nothing."""

import contextlib
import itertools
from collections.abc import Iterator

from sb3_dqs.checks import InputError


@contextlib.contextmanager
def figures_become_files(script: str) -> Iterator[None]:
    """
    While this is open, ``matplotlib.pyplot.show`` saves figures as PNG files where there is no screen for windows.

    The files are named after the script, ``plot_train.png``, ``plot_train_2.png`` and so on, in the working directory, and
    their names are printed.

    :param script: name of the script
    :raises ValueError: if ``plot_train`` has drawn nothing
    """
    import matplotlib
    import matplotlib.pyplot as plt
    from matplotlib.backends import BackendFilter, backend_registry

    show, counter = plt.show, itertools.count(1)

    def save_or_show(*args: object, **kwargs: object) -> None:
        figures = [plt.figure(identity) for identity in plt.get_fignums()]
        if script == "plot_train" and not any(axes.lines for figure in figures for axes in figure.axes):
            raise InputError("no run has as many episodes as --episode-window, 100 by default; give -w a smaller number")
        if matplotlib.get_backend().lower() not in backend_registry.list_builtin(BackendFilter.NON_INTERACTIVE):
            show(*args, **kwargs)
            return
        for figure in figures:
            number = next(counter)
            path = f"{script}.png" if number == 1 else f"{script}_{number}.png"
            figure.savefig(path, bbox_inches="tight")
            print(f"There is no screen; the figure is in {path}")
        plt.close("all")

    plt.show = save_or_show
    try:
        yield
    finally:
        plt.show = show
