"""Trained policies outside of torch: one ONNX file, from observations of the environment to its actions; extra ``export``."""

from sb3_dqs.export.deployed import DeployedPolicy
from sb3_dqs.export.onnx import Comparison, compare_with_predict, export_onnx

__all__ = ["Comparison", "DeployedPolicy", "compare_with_predict", "export_onnx"]
