"""In which precision the network runs."""

import torch


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """The context for ``trainer.precision``: bf16 where that, or "auto" on a GPU that has it, says so; else float32."""
    if precision == "auto":
        bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
        precision = "bf16" if bf16 else "fp32"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
