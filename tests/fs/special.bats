#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# Fifos, sockets, device nodes, programs.

load fs.bash

@test "a fifo carries bytes between processes" {
    probe special-fifo
}

@test "a socket is bound and connected" {
    probe special-socket
}

@test "device nodes are for root" {
    probe special-device
}

@test "mknod makes an empty file" {
    probe special-mknod-file
}

@test "a program on the mount runs; ETXTBSY while it is written or runs" {
    probe special-execute
}
