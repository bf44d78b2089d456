"""Pictures of pictures: how large one is drawn."""


def fitted(size: tuple[int, int], box: tuple[int, int], *, enlarge: bool = False) -> tuple[int, int]:
    """Width and height, of the same shape as ``size`` where that is possible, that lie within ``box``; at least 1.

    However narrow or long a picture is, what is drawn of it is no larger than the box. Smaller ones keep their size
    unless ``enlarge`` fits them to the box as well.
    """
    scale = min(side / own for side, own in zip(box, size, strict=True))
    scale = scale if enlarge else min(1, scale)
    width, height = (min(most, max(1, round(scale * own))) for own, most in zip(size, box, strict=True))
    return width, height
