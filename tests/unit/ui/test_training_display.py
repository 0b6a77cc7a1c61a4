"""The training display, on a terminal and in a log."""

from __future__ import annotations

import re
from io import StringIO

import pytest
from rich.console import Console

from rsearch_cli.services.spend import ServiceSpend, Spend
from rsearch_cli.streams import open_console
from rsearch_cli.ui.progress import describe_spend, phase
from rsearch_cli.ui.training_display import TrainingDisplay, sparkline


class Clock:
    """Time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def log_console() -> Console:
    return open_console(file=StringIO(), width=100, _environ={})


def terminal_console() -> Console:
    environ = {"TERM": "xterm-256color"}
    return open_console(
        file=StringIO(), width=100, height=50, force_terminal=True, _environ=environ
    )


def written(console: Console) -> str:
    return console.file.getvalue()


def spend() -> Spend:
    exa = ServiceSpend(usd=1.25, saved_usd=0.5, calls=250, hits=100, failed=2)
    judge = ServiceSpend(usd=0.0123, saved_usd=0.0045, calls=64, hits=16)
    return Spend({"exa": exa, "judge": judge})


SPENT = "spent $1.2623, saved $0.5045, 314 calls, 116 hits, 2 failed"


def row(step: int, reward: float | None = 0.5) -> dict[str, object]:
    return {
        "step": step,
        "reward": reward,
        "reward/answer": 0.25,
        "reward/plan": 1.0,
        "reward/format": 0.5,
        "kl": 0.0,
        "seconds/generate": 1.24,
        "seconds/update": 1.5,
    }


def sampled(text: str) -> list[dict[str, object]]:
    """The rollouts of a step, the first with this transcript."""
    return [{"opening": text[:2], "segments": [{"text": text[2:]}]}]


def test_a_log_line_says_what_is_known() -> None:
    console, clock = log_console(), Clock()
    with TrainingDisplay(10, console=console, clock=clock) as display:
        clock.now += 4
        display.on_step(row(1), sampled("a sample"))
    assert written(console) == (
        "step 1/10  reward 0.500  (answer 0.250, plan 1.000, format 0.500)  "
        "generate 1.2 s, update 1.5 s  at most 36 s left\n"
    )


def test_a_log_line_names_every_part_of_the_reward() -> None:
    console = log_console()
    with TrainingDisplay(10, console=console, clock=Clock()) as display:
        display.on_step({**row(1), "reward/retrieval": 0.75}, [])
    assert "format 0.500, retrieval 0.750)" in written(console)


def test_a_log_line_counts_what_was_discarded() -> None:
    console = log_console()
    figures = {"discarded/rollouts": 24, "discarded/usd": 0.031}
    with TrainingDisplay(10, console=console, clock=Clock()) as display:
        display.on_step({**row(1), **figures}, [])
    assert "24 rollouts discarded ($0.0310)" in written(console)


def test_a_log_line_says_what_was_spent() -> None:
    console, clock = log_console(), Clock()
    with TrainingDisplay(10, spend, console, clock) as display:
        display.on_step(row(1), [])
    assert f"update 1.5 s  {SPENT}  at most" in written(console)


def test_a_terminal_shows_what_was_spent() -> None:
    console = terminal_console()
    with TrainingDisplay(10, spend, console, Clock()) as display:
        display.on_step(row(1), [])
    assert SPENT in " ".join(written(console).split())


def test_a_phase_says_what_was_spent() -> None:
    console = log_console()
    with phase("evaluating", 8, spend, console, Clock()) as advance:
        advance(8)
    assert written(console).splitlines()[-1] == f"evaluating: 8/8 answers  {SPENT}"


def test_a_phase_on_a_terminal_says_what_was_spent() -> None:
    console = terminal_console()
    with phase("evaluating", 8, spend, console) as advance:
        advance(8)
    assert "spent $1.2623" in written(console)


def test_a_run_that_sends_nothing_says_nothing_of_money() -> None:
    assert describe_spend(Spend({"local": ServiceSpend(calls=9, hits=7)})) == ""


def test_failures_are_only_told_where_there_are_some() -> None:
    assert describe_spend(Spend({"exa": ServiceSpend(usd=0.005, calls=1)})) == (
        "spent $0.0050, saved $0.0000, 1 calls, 0 hits"
    )


def test_a_log_gets_a_line_every_two_seconds_and_the_last() -> None:
    console, clock = log_console(), Clock()
    with TrainingDisplay(100, console=console, clock=clock) as display:
        for step in range(1, 12):
            display.on_step(row(step), [])
            clock.now += 0.5
    steps = [line.split("  ")[0] for line in written(console).splitlines()]
    assert steps == ["step 1/100", "step 5/100", "step 9/100", "step 11/100"]


def test_the_last_line_is_not_repeated() -> None:
    console = log_console()
    with TrainingDisplay(1, console=console, clock=Clock()) as display:
        display.on_step(row(1), [])
    assert written(console).count("step 1/1") == 1


def test_the_last_line_is_written_when_training_fails() -> None:
    console = log_console()
    with (
        pytest.raises(KeyboardInterrupt),
        TrainingDisplay(9, console=console, clock=Clock()) as display,
    ):
        display.on_step(row(1), [])
        display.on_step(row(2), [])
        raise KeyboardInterrupt
    assert "step 2/9" in written(console)


@pytest.mark.parametrize("reward", [None, float("nan")])
def test_a_step_without_a_score_is_named(reward: float | None) -> None:
    console = log_console()
    with TrainingDisplay(9, console=console, clock=Clock()) as display:
        display.on_step(row(1, reward), [])
    assert "step 1/9  reward unscored  (answer" in written(console)


def test_a_step_that_is_learnt_without_a_reward_shows_its_loss() -> None:
    console = log_console()
    with TrainingDisplay(9, console=console, clock=Clock()) as display:
        display.on_step({"step": 1, "loss": 0.5}, [])
    assert "step 1/9  loss 0.500" in written(console)
    assert "reward" not in written(console)


def test_time_left_follows_the_steps_of_this_run_only() -> None:
    console, clock = log_console(), Clock()
    with TrainingDisplay(100, console=console, clock=clock) as display:
        clock.now += 600  # a slow first step after a resume
        display.on_step(row(41), [])
        clock.now += 10
        display.on_step(row(42), [])
        clock.now += 10
        display.on_step(row(43), [])
        clock.now += 40
        display.on_step(row(44), [])
    lines = written(console).splitlines()
    assert [line.rpartition("  ")[2] for line in lines] == [
        # The first step compiles and warms up; later ones are the measure.
        *("at most 9 h 50 min left", "9 min 40 s left", "9 min 30 s left", "18 min 40 s left"),
    ]


def test_time_left_includes_what_follows_training() -> None:
    console, clock = log_console(), Clock()
    with TrainingDisplay(3, console=console, clock=clock, afterwards=90.0) as display:
        for step in (1, 2):
            clock.now += 10
            display.on_step(row(step), [])
    assert written(console).endswith("1 min 40 s left\n")


def test_status_lines_come_in_order_and_once() -> None:
    console = log_console()
    with TrainingDisplay(9, console=console, clock=Clock()) as display:
        display.status("loading [bold]the model")
        display.status("loading [bold]the model")
        display.on_step(row(1), [])
        display.on_step(row(2), [])
        display.status("saving checkpoint-2")
    lines = [line.split("  ")[0] for line in written(console).splitlines()]
    assert lines == ["loading [bold]the model", "step 2/9", "saving checkpoint-2"]


def test_a_terminal_shows_progress_parts_course_and_sample() -> None:
    console, clock = terminal_console(), Clock()
    with TrainingDisplay(10, console=console, clock=clock) as display:
        for step in (1, 2):
            clock.now += 2
            display.on_step(row(step, reward=step / 4), sampled(f"sample {step}"))
        display.status("saving")
    text = re.sub(r"\x1b\[[\d;]*m", "", written(console))
    for part in ("step 2/10", "reward 0.500", "answer 0.250", "16 s left", "0.250 ▁█ 0.500"):
        assert part in text
    for part in ("generate 1.2 s", "0:00:04 elapsed", "saving", "sample 2", "━"):
        assert part in text


def test_a_terminal_shows_samples_as_they_are() -> None:
    console = terminal_console()
    hostile = (
        "[red]<think>[/nope] \x1b[2J\x1b]0;title\x07 " + "x" * 3000 + " <answer> end </answer>"
    )
    with TrainingDisplay(10, console=console, clock=Clock()) as display:
        display.on_step(row(1), sampled(hostile))
    text = written(console)
    assert "[red]<think>[/nope]" in text
    assert "\x1b[2J" not in text
    assert "\x1b]0;" not in text
    assert "[…]" in text
    assert "<answer> end </answer>" in text


def test_a_terminal_keeps_the_sample_when_none_comes() -> None:
    console = terminal_console()
    with TrainingDisplay(10, console=console, clock=Clock()) as display:
        display.on_step(row(1), sampled("the first sample"))
        display.on_step(row(2), [])
    last_frame = written(console).rpartition("step 2/10")[2]
    assert "the first sample" in last_frame


def test_a_terminal_shows_something_before_the_first_step() -> None:
    console = terminal_console()
    with TrainingDisplay(10, console=console, clock=Clock()) as display:
        display.status("loading [the model")
    assert "step 0/10" in written(console)
    assert "loading [the model" in written(console)


def test_a_log_keeps_the_step_and_the_alarm_that_follows_it() -> None:
    console = log_console()
    with TrainingDisplay(9, console=console, clock=Clock()) as display:
        display.on_step(row(1), [])
        display.on_step({**row(2), "alarms": ["truncated", "format_low"]}, [])
        display.on_alarm(2, "truncated", "[bold]95% of completions")
        display.on_step(row(3), [])
    lines = written(console).splitlines()
    assert "ALARM truncated, format_low" in lines[1] and "ALARM" not in lines[0] + lines[3]
    assert lines[2] == "alarm after step 2: [bold]95% of completions (alarms.truncated)"


def test_a_terminal_shows_alarms_and_validations() -> None:
    console = terminal_console()
    with TrainingDisplay(9, console=console, clock=Clock()) as display:
        display.on_step({**row(2), "alarms": ["truncated"]}, [])
        display.on_alarm(2, "truncated", "[bold]95% of completions")
        display.on_validation({"step": 4, "f1": 0.25}, {"step": 2, "f1": 0.5})
    text = written(console)
    assert text.count("alarm after step 2: [bold]95% of completions") == 1
    assert "ALARM truncated" in text
    assert "validation after step 4: F1 0.250, best 0.500 after step 2" in text


def test_phase_in_a_log() -> None:
    console, clock = log_console(), Clock()
    with phase("evaluating [before]", 8, console=console, clock=clock) as advance:
        for _ in range(4):
            advance(2)
            clock.now += 0.8
    assert written(console).splitlines() == [
        f"evaluating [before]: {done}/8 answers" for done in (0, 8)
    ]


def test_phase_on_a_terminal() -> None:
    console = terminal_console()
    with phase("evaluating [before]", 8, console=console) as advance:
        advance(8)
    assert "evaluating [before]" in written(console)
    assert "8/8" in written(console)


def test_phase_leaves_its_last_count_when_it_fails() -> None:
    console = log_console()
    with (
        pytest.raises(KeyboardInterrupt),
        phase("evaluating", 8, console=console, clock=Clock()) as advance,
    ):
        advance(3)
        raise KeyboardInterrupt
    assert written(console).splitlines()[-1] == "evaluating: 3/8 answers"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([0.5], "0.500 ▁ 0.500"),
        ([0.0, 0.5, 1.0], "0.000 ▁▅█ 1.000"),
        ([0.0, 0.2, 0.4, 0.6], "0.100 ▁█ 0.500"),
        ([0.2, 0.2], "0.200 ▁▁ 0.200"),
    ],
)
def test_sparkline(values: list[float], line: str) -> None:
    assert sparkline(values, 2 if len(values) == 4 else 40) == line


def test_sparkline_never_outgrows_its_columns() -> None:
    assert len(sparkline([i / 100 for i in range(100)], 40).split()[1]) == 40
