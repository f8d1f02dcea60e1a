"""Random examples are the same in every run; RESONANCE_FUZZ=1 draws fresh ones."""

import os
import signal

from hypothesis import settings

# A suite started in the background inherits that Ctrl-C is ignored; the commands that tests interrupt must not.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("fixed", derandomize=True)
settings.register_profile("fresh", derandomize=False)
settings.load_profile("fresh" if os.environ.get("RESONANCE_FUZZ") else "fixed")


# what `make test-all` may skip: nothing but devices that are not there
DEVICES = ("cuda", "cupy", "gpu")


def not_excused(reasons):
    """Reasons for skipping that name no device."""
    return [reason for reason in reasons if not any(word in reason.lower() for word in DEVICES)]


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not os.environ.get("RESONANCE_TEST_ALL"):
        return
    skipped = [f"{report.nodeid}: {report.longrepr[2]}" for report in reporter.stats.get("skipped", [])]
    if bad := not_excused(skipped):
        reporter.write_line(
            "skipped although `make test-all` installs all but devices:\n  " + "\n  ".join(bad), red=True
        )
        session.exitstatus = 1
