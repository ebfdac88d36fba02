"""Batch normalisation over the batches of all processes (that of PyTorch works only on GPUs)."""

import torch
from torch import Tensor, nn

from sasv.parallel.processes import total_with_gradient


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm that, in training, uses the statistics over the batches of all processes. Its
    state-dict keys are those of PyTorch.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        return

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        assert (
            self.running_mean is not None
            and self.running_var is not None
            and self.num_batches_tracked is not None
        )
        x = input.float()
        axes = [0, *range(2, x.dim())]
        shape = [1, -1, *[1] * (x.dim() - 2)]
        own = torch.full((1,), x.numel() / x.shape[1], device=x.device)
        total = total_with_gradient(torch.cat((x.sum(axes), own)))
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = x - mean.view(shape)
        variance = total_with_gradient(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            step = (
                self.momentum
                if self.momentum is not None
                else 1.0 / float(self.num_batches_tracked)
            )
            self.running_mean.lerp_(mean, step)
            self.running_var.lerp_(variance * (count / (count - 1)), step)
        scaled = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)
        return scaled.to(input.dtype)


def batch_norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """Return every batch norm inside a module."""
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def normalise_globally(module: nn.Module, device: torch.device) -> nn.Module:
    """Replace every batch norm inside a module by one over all processes, with the same state."""
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            changed = GlobalBatchNorm(child.num_features, child.eps, child.momentum, child.affine)
            changed.load_state_dict(child.state_dict())
            setattr(module, name, changed)
        else:
            normalise_globally(child, device)
    return module
