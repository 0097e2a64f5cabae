#!/usr/bin/python
# Copyright The hostaudit authors. Apache License 2.0.
from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
module: hostaudit_facts
short_description: Audit a host and return the report as facts
description:
  - Runs C(hostaudit scan) and returns its report as the fact C(hostaudit). It changes nothing, and runs in check mode too.
  - Findings do not fail the task; assert on the fact. What could not be read stands in C(hostaudit.incomplete).
author: The hostaudit authors
options:
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
  incomplete:
    description: What to do when the host could not be read completely.
    type: str
    choices: [accept, fail]
    default: accept
"""

EXAMPLES = r"""
- name: Audit
  hostaudit.hostaudit.hostaudit_facts:

- name: No service may be out of reach
  ansible.builtin.assert:
    that: ansible_facts.hostaudit.findings | selectattr('severity', 'equalto', 'critical') | list | length == 0
    fail_msg: "{{ ansible_facts.hostaudit.verdict }}"
"""

RETURN = r"""
ansible_facts:
  description: The fact C(hostaudit) is the report of C(hostaudit scan --format json), in the form of scan.v1.json.
  returned: success
  type: dict
exit_code:
  description: The exit code of hostaudit; 1 for findings, 3 where the host could not be read completely.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.hostaudit.hostaudit.plugins.module_utils.hostaudit import command, common_arguments, run


def main():
    module = AnsibleModule(
        argument_spec=dict(common_arguments(), incomplete=dict(type="str", choices=["accept", "fail"], default="accept")),
        supports_check_mode=True,
    )
    rc, report, err = run(module, command(module, "scan"), accept=(0, 1, 3))
    if rc == 3 and module.params["incomplete"] == "fail":
        module.fail_json(msg="the host could not be read completely", incomplete=report["incomplete"], rc=rc)
    module.exit_json(changed=False, exit_code=rc, ansible_facts=dict(hostaudit=report))


if __name__ == "__main__":
    main()
