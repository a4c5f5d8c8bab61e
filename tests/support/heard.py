"""A progress object that keeps what it hears."""

from attengait.system.progress import Progress


class Heard(Progress):
    """`counts` are the (done, total) that it heard, `details` what came with them; then `act(done)` is called."""

    def __init__(self, act=lambda done: None):
        self.counts, self.details, self._act = [], [], act

    def update(self, task, done, total, *, unit, detail=None):
        self.counts.append((done, total))
        self.details.append(detail)
        self._act(done)
