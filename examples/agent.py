#!/usr/bin/env python3
"""A scripted agent: does the task of task.md, reports as it was told, and learns from a rejection.

It stands for an interactive coding agent; there is no model behind it. What it knows of delegate-job stands
in the instructions it is given: the commands to report with. What a check says to it arrives at its terminal.
"""

import csv
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path


def read_commands(instructions: str) -> dict[str, list[str]]:
    """Find the exact command for each event, as a reader of the instructions would."""
    commands: dict[str, list[str]] = {}
    for line in instructions.splitlines():
        if found := re.search(r"(\S.* publish .*--event (\w+).*)", line):
            commands.setdefault(found[2], shlex.split(found[1].strip("`")))
    return commands


def publish(commands: dict[str, list[str]], kind: str, detail: str) -> None:
    """Report `kind` with our own words in place of the ones that the instructions give as an example."""
    command = commands[kind]
    options = command[: command.index("--detail")] if "--detail" in command else command
    subprocess.run([*options, "--detail", detail], check=True)


def write_report(orders: list[dict[str, str]]) -> int:
    """Write report.csv from `orders` and return how many customers it has."""
    revenue: Counter[str] = Counter()
    for order in orders:
        revenue[order["customer"]] += int(order["quantity"]) * int(order["unit_cents"])
    with Path("report.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["customer", "revenue_cents"])
        rows.writerows(sorted(revenue.items()))
    return len(revenue)


def read_rejection() -> list[str]:
    """Wait at the terminal for the message about a rejection, read it to its end, and return the faults."""
    faults = []
    for line in sys.stdin:
        if "fault: " in line:
            faults.append(line.partition("fault: ")[2].strip())
        if line.startswith("Checks left:"):
            return faults
    sys.exit("the terminal was closed")


def main() -> None:
    """Do the task; as long as the work is rejected, mend it and claim again."""
    commands = read_commands(Path(sys.argv[1]).read_text(encoding="utf-8"))
    publish(commands, "started", "reading orders.csv")
    with Path("orders.csv").open(newline="", encoding="utf-8") as file:
        orders = list(csv.DictReader(file))
    publish(commands, "progress", f"adding up {len(orders)} orders")
    write_report(orders)
    publish(commands, "completed", f"report.csv is written, {len(orders)} orders counted")
    while faults := read_rejection():
        print(f"The check found {len(faults)} faults: {faults}", flush=True)
        statuses = {order["status"] for order in orders}
        wrong = {status for status in statuses if any(f"{status} orders" in fault for fault in faults)}
        if not wrong:
            publish(commands, "error", f"cannot mend this: {'; '.join(faults)}")
            return
        publish(commands, "progress", f"leaving out {', '.join(wrong)} orders")
        orders = [order for order in orders if order["status"] not in wrong]
        write_report(orders)
        publish(commands, "completed", f"report.csv is mended, {len(orders)} orders counted")


if __name__ == "__main__":
    main()
