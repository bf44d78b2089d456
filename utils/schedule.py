"""How long a run is and how its learning rate falls (docs/method.md section 6)."""

from dataclasses import dataclass

from utils.config import Config


@dataclass(frozen=True)
class Schedule:
    """The length of a run. It belongs to the configuration, not to the devices that run it.

    Attributes
    ----------
    iterations_per_epoch
        floor(n_labelled / (batch_size / n_gpu)), at least 1.
    epochs, early_stop
        As in the configuration, times floor(num_images_all / n_labelled).
    """

    iterations_per_epoch: int
    epochs: int
    early_stop: int

    @property
    def iterations(self) -> int:
        return self.epochs * self.iterations_per_epoch

    @classmethod
    def from_config(cls, config: Config) -> "Schedule":
        labelled = config.n_labeled_examples
        multiple = max(1, config.num_images_all // labelled)
        return cls(
            iterations_per_epoch=max(1, labelled * config.n_gpu // config.train_supervised.batch_size),
            epochs=config.trainer.epochs * multiple,
            early_stop=config.trainer.early_stop * multiple,
        )


def poly_factor(iteration: int, iterations: int) -> float:
    """(1 - t/N)^0.9: what the learning rate of iteration t of N is multiplied by."""
    return (1 - iteration / iterations) ** 0.9
