"""Trained policies outside of torch: one ONNX file, from observations of the environment to its actions; extra ``export``."""

from sb3_dqs.export.deployed import DeployedPolicy
from sb3_dqs.export.onnx import difference_from_predict, export_onnx

__all__ = ["DeployedPolicy", "difference_from_predict", "export_onnx"]
