#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Several users on one filesystem get what Linux gives them. Needs root.

load fs.bash

@test "another user is refused what the modes do not allow" {
    probe user-access
}

@test "only the owner changes attributes" {
    probe user-attributes
}

@test "members of a group, and outsiders" {
    probe user-groups
}

@test "a sticky directory protects what others made" {
    probe user-sticky-directory
}

@test "a change of the data by another user drops set-id bits" {
    probe user-set-id-data
}

@test "root keeps set-id bits when it writes; chown drops them" {
    probe user-set-id-owner
}

@test "setgid is not for owners outside the group" {
    probe user-set-id-chmod
}

@test "a descriptor works in the hands of another user" {
    probe user-inherited-descriptor
}
