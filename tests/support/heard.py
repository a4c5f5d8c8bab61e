"""A progress object that keeps what it hears."""

from attengait.system.progress import Progress


class Heard(Progress):
    """`tasks`, `counts` (done, total) and `details` are what it heard; then `act(done)` is called."""

    def __init__(self, act=lambda done: None):
        self.tasks, self.counts, self.details, self._act = [], [], [], act

    def update(self, task, done, total, *, unit, detail=None):
        self.tasks.append(task)
        self.counts.append((done, total))
        self.details.append(detail)
        self._act(done)
