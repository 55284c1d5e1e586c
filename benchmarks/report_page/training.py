"""What the manifest says of the training, in lines."""

from clipstep.runtime.bundle import Bundle
from clipstep.runtime.command_line.confidence_interval import proportion_text
from clipstep.runtime.errors import ClipstepError


def training_lines(bundle: Bundle) -> list[str]:
    """Return how the network was trained, with the accuracy it reached, and the warnings of that training; nothing if the manifest does not say it.

    Raises:
        ClipstepError: the summary is malformed.
    """
    training = bundle.manifest.training
    if "test_top1" not in training:
        return []
    try:
        init = training.get("init")
        how = f"fine-tuned from {init['from']}" if init else "trained"
        line = (
            f"{how} {training['minutes']:.1f} min on {training['train_videos']} videos; test top-1 "
            f"{proportion_text(training['test_top1'], training['test_videos'])}, largest class {training['test_largest_class_share']:.1%}"
        )
        warnings = [str(warning) for warning in training.get("warnings", ())]
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise ClipstepError(f"{bundle.path}: the manifest's training summary is malformed", got=repr(error), fix="export it again") from error
    return [line, *(f"a warning of that training: {warning}" for warning in warnings)]
