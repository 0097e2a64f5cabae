# Copyright The hostaudit authors. Apache License 2.0.
"""Runs hostaudit and reads what it prints; shared by the modules."""
from __future__ import absolute_import, division, print_function

__metaclass__ = type

import json

# Exit codes of hostaudit, see hostaudit(8).
MEANING = {
    2: "the command line or the configuration is wrong",
    3: "the host could not be read completely",
    4: "the change failed and was rolled back",
    5: "the change failed and could not be rolled back completely",
    6: "refused before anything was written",
}


def common_arguments():
    return dict(
        binary=dict(type="path"),
        config=dict(type="path"),
        root=dict(type="path"),
        quick=dict(type="bool", default=False),
    )


def command(module, name):
    """The command line that all calls have in common."""
    binary = module.params["binary"] or module.get_bin_path("hostaudit", required=True, opt_dirs=["/usr/sbin"])
    args = [binary, name, "--format", "json"]
    for option in ("config", "root"):
        if module.params[option]:
            args += ["--" + option, module.params[option]]
    if module.params["quick"]:
        args.append("--quick")
    return args


def run(module, args, accept):
    """Runs hostaudit and returns exit code, the JSON object and stderr. An exit
    code that is not in accept fails the task in its own words."""
    rc, out, err = module.run_command(args, environ_update={"LC_ALL": "C.UTF-8"})
    answer = None
    if out.strip():
        try:
            answer = json.loads(out)
        except ValueError:
            module.fail_json(msg="hostaudit printed no JSON", rc=rc, stdout=out, stderr=err, cmd=args)
    if rc not in accept or answer is None and rc in accept:
        what = MEANING.get(rc, "hostaudit failed")
        module.fail_json(msg="%s: %s" % (what, err.strip() or "exit code %d" % rc), rc=rc, stderr=err, cmd=args, answer=answer)
    return rc, answer, err
