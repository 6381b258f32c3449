"""The registry's tables and how an older registry becomes a new one."""

MIGRATIONS = (
    # 1: jobs, and the events that made them what they are.
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY,
        id TEXT NOT NULL UNIQUE,
        spec TEXT NOT NULL,
        agent TEXT NOT NULL,
        workdir TEXT NOT NULL,
        operation_id TEXT UNIQUE,
        state TEXT NOT NULL,
        outcome TEXT,
        verdict TEXT,
        attempt INTEGER NOT NULL,
        owed TEXT,
        reason TEXT,
        detail TEXT,
        untold INTEGER NOT NULL,
        unheard INTEGER NOT NULL,
        created_at TEXT NOT NULL,
        started_at TEXT,
        ended_at TEXT,
        last_event TEXT,
        last_event_at TEXT,
        sequence INTEGER NOT NULL DEFAULT 0,
        host TEXT,
        owner_pid INTEGER,
        owner_epoch INTEGER NOT NULL DEFAULT 0,
        tmux_socket TEXT,
        reports_inode INTEGER NOT NULL DEFAULT 0,
        reports_offset INTEGER NOT NULL DEFAULT 0,
        control_inode INTEGER NOT NULL DEFAULT 0,
        control_offset INTEGER NOT NULL DEFAULT 0,
        timeout_left REAL,
        quiet_for REAL NOT NULL DEFAULT 0
    );
    CREATE INDEX jobs_by_state ON jobs (state, number);
    CREATE INDEX jobs_by_agent ON jobs (agent, number);
    CREATE INDEX jobs_by_workdir ON jobs (workdir, number);
    CREATE TABLE events (
        sequence INTEGER PRIMARY KEY AUTOINCREMENT,
        job_id TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        source TEXT NOT NULL,
        at TEXT NOT NULL,
        received_at TEXT NOT NULL,
        detail TEXT,
        data TEXT NOT NULL,
        applied INTEGER NOT NULL,
        UNIQUE (job_id, id)
    );
    CREATE INDEX events_by_job ON events (job_id, sequence);
    """,
    # 2: what holds for the whole registry; which jobs need an owner.
    """
    CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
    CREATE INDEX jobs_unsettled ON jobs (number) WHERE state <> 'done' OR owed IS NOT NULL;
    """,
)
"""Each entry leads from the version before to its own number (1, 2, …); none is ever edited."""

VERSION = len(MIGRATIONS)
