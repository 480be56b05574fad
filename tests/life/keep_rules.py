# SPDX-License-Identifier: Apache-2.0
"""The rules of ckptfs-policy(1) once more, as its manual page states them, for tests that compare what stays with them.
All times are seconds."""

HOUR, DAY = 3600, 86400


class Saved:
    """A complete checkpoint."""

    def __init__(self, step, time, loss, best, size):
        self.step, self.time, self.loss, self.size = step, time, loss, size
        self.best = best  # the step that its trainer_state.json names as the best; None: none


def last_of_periods(saved, number, length):
    """Of the last so many periods in which anything was saved, each one's last."""
    periods = {}
    for checkpoint in sorted(saved, key=lambda checkpoint: checkpoint.time):
        periods[checkpoint.time // length] = checkpoint.step
    return {periods[period] for period in sorted(periods)[-number:]} if number else set()


def protected(saved, held):
    """What stays whatever the rules say: the latest, the best by the newest one's word, what is pinned or in use."""
    newest = max(saved, key=lambda checkpoint: checkpoint.step)
    return {newest.step, newest.best} - {None} | held


def wanted(saved, policy):
    by_step = sorted(checkpoint.step for checkpoint in saved)
    by_loss = sorted((checkpoint.loss, checkpoint.step) for checkpoint in saved)
    last = policy.get("keep-last", 0)
    found = set(by_step[-last:]) if last else set()
    found |= {step for _, step in by_loss[: policy.get("keep-best", 0)]}
    found |= last_of_periods(saved, policy.get("keep-hourly", 0), HOUR)
    found |= last_of_periods(saved, policy.get("keep-daily", 0), DAY)
    every = policy.get("keep-every")
    return found | {step for step in by_step if every and step % every == 0}


def within_bytes(saved, kept, safe, liked, limit):
    """Of what is kept so many as there is room for: first what is safe, then what a rule wants, then what is newer."""
    turn = sorted(kept, key=lambda step: (step in safe, step in liked, saved[step].time), reverse=True)
    total, left = 0, set()
    for step in turn:
        total += saved[step].size
        if total <= limit or step in safe:
            left.add(step)
    return left


def stays(saved, policy, now, held):
    """The steps that stay of these checkpoints. `held`: steps that are pinned, or that somebody reads."""
    rules = any(key.startswith("keep-") for key in policy)
    safe = protected(saved, held)
    liked = wanted(saved, policy)
    at = {checkpoint.step: checkpoint for checkpoint in saved}
    kept = {step for step in at if step in safe or not rules or step in liked}
    if age := policy.get("max-age"):
        kept = {step for step in kept if step in safe or now - at[step].time <= age}
    if limit := policy.get("max-bytes"):
        kept = within_bytes(at, kept, safe & kept, liked, limit)
    return kept
