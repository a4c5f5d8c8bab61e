"""What comes out of a sequence, in the form that tests compare."""


def left_out(made):
    """Reason, frames and files of everything that was left out of a sequence."""
    return tuple((str(each.reason), each.frames, each.files) for each in made.skipped)
