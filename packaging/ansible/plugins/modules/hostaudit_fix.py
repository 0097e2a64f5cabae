#!/usr/bin/python
# Copyright The hostaudit authors. Apache License 2.0.
from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: hostaudit_fix
short_description: Mend findings of hostaudit
description:
  - Runs C(hostaudit fix) for the findings named. In check mode only the plan is made, and nothing is written.
  - With diff mode it shows what changes, as the plan does.
  - A change that fails is rolled back by hostaudit, and the task fails and says so.
  - A risky change is kept only when C(hostaudit confirm) comes from a new login before I(deadline); then C(pending) is true.
    Do C(meta) C(reset_connection) and run this module with I(confirm) next, as the role of this collection does.
author: The hostaudit authors
options:
  findings:
    description: Ids of the findings to mend. There is no default; nothing is mended that was not asked for.
    type: list
    elements: str
  confirm:
    description: Keep the change that waits. Nothing else is done then.
    type: bool
    default: false
  require_confirm:
    description: Have the change rolled back unless it is confirmed, also where it is not risky.
    type: bool
    default: false
  deadline:
    description: Time after which a change that was not confirmed is rolled back, such as C(2m).
    type: str
  owner:
    description: Who is taken for the manager of the ruleset where there are several.
    type: str
  configuration:
    description: Change servers' own configuration (bind addresses), too.
    type: bool
    default: false
  any_namespace:
    description: Apply although this is not the machine's first network namespace, for containers.
    type: bool
    default: false
  binary:
    description: The program. By default it is looked for in the search path.
    type: path
  config:
    description: A configuration file over /etc/hostaudit/hostaudit.yaml.
    type: path
  root:
    description: Take the host's configuration files from beneath this directory.
    type: path
  quick:
    description: Do not watch counters for a second.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Open the ports of configured services that a rule keeps closed
  hostaudit.hostaudit.hostaudit_fix:
    findings: [firewall.port-blocked]
  register: fixed

- name: Log in anew
  ansible.builtin.meta: reset_connection

- name: Keep the change
  hostaudit.hostaudit.hostaudit_fix:
    confirm: true
  when: fixed.pending
"""

RETURN = r"""
plan:
  description: The plan, in the form of plan.v1.json.
  returned: when a plan was made
  type: dict
pending:
  description: Whether the change waits to be confirmed.
  returned: success
  type: bool
manual:
  description: Findings that were asked for and are left to the operator, with what to do.
  returned: when a plan was made
  type: list
"""

import json
import subprocess
import tempfile
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostaudit.hostaudit.plugins.module_utils.hostaudit import MEANING, command, common_arguments, run


def difference(plan):
    """The plan as Ansible shows differences: files as they change, else the value."""
    out = []
    for change in plan["changes"]:
        if change.get("diff"):
            out.append(dict(prepared=change["diff"]))
        if change["kind"] != "file":
            out.append(dict(
                before_header="%s (%s)" % (change["subject"], change["finding"]), before=change["before"] + "\n",
                after_header="%s (%s)" % (change["subject"], change["owner"]), after=change["after"] + "\n",
            ))
    return out


def confirm(module):
    if module.check_mode:
        module.exit_json(changed=False, pending=False)
    args = command(module, "confirm")[:2]
    if module.params["root"]:
        args += ["--root", module.params["root"]]
    rc, out, err = module.run_command(args)
    if rc != 0:
        module.fail_json(msg="%s: %s" % (MEANING.get(rc, "hostaudit failed"), err.strip()), rc=rc, cmd=args)
    module.exit_json(changed=True, pending=False, msg=err.strip())


def waiting(module):
    """The id of the change that is live and waits to be confirmed, or None."""
    args = command(module, "history")[:4]
    if module.params["root"]:
        args += ["--root", module.params["root"]]
    rc, out, err = module.run_command(args)
    if rc == 0:
        for change in json.loads(out)["changes"]:
            if change["state"] == "applied":
                return change["id"]
    return None


def apply_and_leave(module, args):
    """Starts a change that waits for its confirmation, and comes back once it is
    live: hostaudit itself goes on waiting, in a session of its own, and rolls it
    back when nobody confirms it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, open("/dev/null") as nothing:
        process = subprocess.Popen(args, stdin=nothing, stdout=out, stderr=err, start_new_session=True)
        while process.poll() is None:
            if waiting(module):
                return
            time.sleep(0.2)
        err.seek(0)
        text = err.read().decode("utf-8", "replace").strip()
    # It ended before it was live.
    if process.returncode != 0:
        module.fail_json(msg="%s: %s" % (MEANING.get(process.returncode, "hostaudit failed"), text), rc=process.returncode, cmd=args)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            common_arguments(),
            findings=dict(type="list", elements="str"),
            confirm=dict(type="bool", default=False),
            require_confirm=dict(type="bool", default=False),
            deadline=dict(type="str"),
            owner=dict(type="str"),
            configuration=dict(type="bool", default=False),
            any_namespace=dict(type="bool", default=False),
        ),
        mutually_exclusive=[("findings", "confirm")],
        supports_check_mode=True,
    )
    if module.params["confirm"]:
        confirm(module)
    # Without ids hostaudit mends all it can; that is never meant here.
    if not module.params["findings"]:
        module.fail_json(msg="findings: name at least one")
    args = command(module, "fix")
    if module.params["owner"]:
        args += ["--owner", module.params["owner"]]
    if module.params["configuration"]:
        args.append("--configuration")
    ids = ["--"] + module.params["findings"]
    rc, plan, err = run(module, args + ids, accept=(0,))
    result = dict(changed=bool(plan["changes"]), plan=plan, manual=plan["manual"], pending=False, diff=difference(plan))
    if module.check_mode or not result["changed"]:
        module.exit_json(**result)
    args += ["--apply", "--yes"]
    if module.params["require_confirm"]:
        args.append("--confirm")
    if module.params["deadline"]:
        args += ["--deadline", module.params["deadline"]]
    if module.params["any_namespace"]:
        args.append("--any-namespace")
    if plan["risky"] or module.params["require_confirm"]:
        apply_and_leave(module, args + ids)
        result["pending"] = waiting(module) is not None
        module.exit_json(**result)
    rc, plan, err = run(module, args + ids, accept=(0,))
    result.update(changed=bool(plan["changes"]), plan=plan, manual=plan["manual"], diff=difference(plan), stderr=err)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
