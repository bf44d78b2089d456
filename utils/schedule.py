"""How long a run is and how its learning rate falls (docs/method.md section 6)."""

from dataclasses import dataclass

from utils.config import BASELINE, Config


@dataclass(frozen=True)
class Schedule:
    """The length of a run. It belongs to the configuration, not to the devices that run it.

    Attributes
    ----------
    iterations_per_epoch
        floor(n_labelled / (batch_size / n_gpu)); of a baseline, which goes once over the labelled images,
        floor(n_labelled / batch_size). At least 1.
    lr_steps_per_epoch
        The steps by which the learning rate falls in an epoch: floor(n_labelled / (batch_size / n_gpu)) for a baseline
        as well, which leaves the last ones of every epoch out where n_gpu is above 1.
    epochs, early_stop
        As in the configuration, times floor(num_images_all / n_labelled).
    """

    iterations_per_epoch: int
    lr_steps_per_epoch: int
    epochs: int
    early_stop: int

    @property
    def iterations(self) -> int:
        return self.epochs * self.iterations_per_epoch

    @classmethod
    def from_config(cls, config: Config) -> "Schedule":
        labelled, batch_size = config.n_labeled_examples, config.train_supervised.batch_size
        multiple = max(1, config.num_images_all // labelled)
        steps = max(1, labelled * config.n_gpu // batch_size)
        return cls(
            iterations_per_epoch=max(1, labelled // batch_size) if config.name == BASELINE else steps,
            lr_steps_per_epoch=steps,
            epochs=config.trainer.epochs * multiple,
            early_stop=config.trainer.early_stop * multiple,
        )

    def lr_factor(self, iteration: int) -> float:
        """What the learning rate of an iteration is multiplied by: (1 - t/N)^0.9, t and N in ``lr_steps_per_epoch``."""
        epoch, within = divmod(iteration, self.iterations_per_epoch)
        step, steps = epoch * self.lr_steps_per_epoch + within, self.epochs * self.lr_steps_per_epoch
        return (1 - step / steps) ** 0.9


def ends_before_unlabelled(config: Config) -> bool:
    """Whether a method for unlabelled images never sees one: ``model.epoch_start_unsup`` is not before its end."""
    return config.uses_unlabelled and config.model.epoch_start_unsup >= Schedule.from_config(config).epochs
