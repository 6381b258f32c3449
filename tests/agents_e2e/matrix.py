"""Which promise holds for which real agent: what the tests here run, and the table of docs/agents.md.

A cell that says `yes` is a test that is run, and passes, with this agent; with any other it is not run.
"""

from types import MappingProxyType
from typing import NamedTuple

from agents_e2e.real_agents import RIGS, Rig

YES = "yes"
AGENTS = tuple(rig.agent for rig in RIGS)
_NO_WAY = MappingProxyType({"codex": "refused: no way", "gemini": "refused: no way"})
_UNTOLD = "not told: asked for its report"
_BACKGROUND = MappingProxyType({"codex": _UNTOLD, "gemini": _UNTOLD, "opencode": "has none"})


class Row(NamedTuple):
    """A promise, the test that shows it, and what is so with agents for which it does not hold."""

    words: str
    test: str
    instead: "MappingProxyType[str, str] | dict[str, str]" = MappingProxyType({})

    def cell(self, agent: str) -> str:
        """Return what stands under an agent."""
        return self.instead.get(agent, YES)


ROWS = (
    Row("completes with a report", "test_completes_with_a_report"),
    Row("a prompt of 100 KB", "test_a_prompt_of_100_kilobytes"),
    Row("a prompt that begins with `!` or `/` is text", "test_a_prompt_is_no_command"),
    Row("two jobs at once in one work dir", "test_two_jobs_in_one_work_dir"),
    Row("`--worktree`, with the log outside of it", "test_in_a_worktree_of_its_own"),
    Row("`--attempts 2`: rejected, mended, accepted", "test_a_rejected_work_is_mended"),
    Row("`send` is received and heeded", "test_a_follow_up"),
    Row(
        "`send` while the last answer is given: a turn of its own",
        "test_a_message_while_the_last_answer_is_given",
        {"gemini": "a person is called first"},
    ),
    Row("`send` before the last tool is used", "test_a_message_before_the_last_tool_is_used"),
    Row("ends its turn without a report: asked once, then reports", "test_asked_for_a_report_it_reports"),
    Row("asked and silent: waits for a person", "test_an_agent_that_never_reports_waits_for_a_person"),
    Row(
        "`--accept-silent-stop`: the check decides", "test_the_check_decides_for_an_agent_that_never_reports"
    ),
    Row("a dialog is told, and granted in the session", "test_a_permission_is_granted_in_the_session"),
    Row("a dialog is refused in the session", "test_a_permission_is_refused_in_the_session"),
    Row("`approve`", "test_a_permission_is_approved_from_another_terminal"),
    Row("`deny`", "test_a_permission_is_denied_with_a_reason"),
    Row("`answer` to a question", "test_a_question_is_answered", _NO_WAY),
    Row("a background task is no end", "test_a_background_task_is_no_end", _BACKGROUND),
    Row(
        "Esc: the job goes on with what is sent",
        "test_esc_does_not_end_the_job",
        {"gemini": "told as an error: fails"},
    ),
    Row(
        "the model's API refuses a request: fails",
        "test_an_error_of_the_model_fails_the_job",
        {"opencode": "tries for ever: `progress`"},
    ),
    Row("killed: lost", "test_killed"),
    Row("is told of the skill of `skill install`", "test_is_told_of_the_skill"),
    Row("a hook of ours fails: the work goes on; `doctor` tells", "test_a_hook_that_fails_does_no_harm"),
    Row("a hook of ours hangs: the same", "test_a_hook_that_hangs_does_no_harm"),
    Row("hooks are switched off: the same", "test_hooks_that_are_off_do_no_harm"),
    Row("`doctor` sees it run our hooks", "test_doctor_sees_the_hooks_run"),
    Row("takes the tools of `delegate-job mcp`", "test_takes_the_tools_of_the_mcp_server"),
)
"""The table of docs/agents.md, from above to below."""

OTHERWISE = MappingProxyType(
    {
        "test_a_background_task_is_not_told": {"codex", "gemini"},
        "test_esc_fails_the_job": {"gemini"},
        "test_a_retry_of_the_model_is_told": {"opencode"},
        "test_doctor_tries_one_that_was_never_started": {"opencode"},
    }
)
"""Tests of what is so of some agents only, as where a promise does not hold -> those agents."""


def is_run(test: str, rig: Rig) -> bool:
    """Say whether a test of these files is run with an agent."""
    if test in OTHERWISE:
        return rig.agent in OTHERWISE[test]
    return next(row.cell(rig.agent) == YES for row in ROWS if row.test == test)


def table() -> str:
    """Return the table in Markdown."""
    head = ["", *(f"{rig.agent} {rig.version}" for rig in RIGS)]
    lines = [head, ["---"] * len(head), *([row.words, *map(row.cell, AGENTS)] for row in ROWS)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
