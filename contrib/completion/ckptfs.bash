# SPDX-License-Identifier: Apache-2.0
# Completion of ckptfs command lines for bash.

_ckptfs_mounts() {
    # Mounts of ckptfs, with the escapes of mountinfo undone.
    local mountpoint
    awk '/ - fuse\.ckptfs / { print $5 }' /proc/self/mountinfo 2>/dev/null |
        while read -r mountpoint; do printf '%b\n' "${mountpoint//\\/\\0}"; done
}

_ckptfs_complete_words() {
    local IFS=$'\n'
    mapfile -t COMPREPLY < <(compgen -W "$1" -- "$2")
}

_ckptfs_mount_options() {
    local options='allow_other noallow_other ro nosuid nodev noexec noatime passthrough=auto passthrough=off '
    options+='sharing=backward sharing=forward sharing=off hooks=no verify-on-share=yes share-owners=yes assemble=auto assemble=view assemble=off assemble=ask trash=on trash=off trash-age= min-free= full-timeout= inline= threads= read-ahead= '
    options+='hang-timeout= backup-interval= log='
    local done_part=''
    case $1 in *,*) done_part=${1%,*}, ;; esac
    compopt -o nospace
    local last=${1##*,}
    _ckptfs_complete_words "${options// /$'\n'}" "$last"
    COMPREPLY=("${COMPREPLY[@]/#/$done_part}")
}

_ckptfs() {
    local word=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command=${COMP_WORDS[1]-}
    local mountpoints
    local policy_keys=$'assemble\nkeep-last\nkeep-best\nkeep-every\nkeep-hourly\nkeep-daily\nmax-bytes\nmax-age\nshed'
    policy_keys+=$'\ntrash\ntrash-age\nexport\nexport-when\nhook-complete\nhook-best\nhook-removed\nhook-exported\nhook-export-failed\nhook-torn\nhook-assembled\nhook-timeout'
    COMPREPLY=()
    # "=" splits words: what follows "passthrough=" arrives alone.
    if [ "$word" = = ] || [ "$previous" = = ]; then
        local option=$previous
        if [ "$previous" = = ]; then option=${COMP_WORDS[COMP_CWORD - 2]}; else word=''; fi
        case ${option##*,} in
            passthrough) _ckptfs_complete_words $'auto\noff' "$word" ;;
            export-when) _ckptfs_complete_words $'complete\nlatest\nbest\npinned' "$word" ;;
            assemble) _ckptfs_complete_words $'auto\nview\noff\nask' "$word" ;;
            hooks | verify-on-share | share-owners) _ckptfs_complete_words $'yes\nno' "$word" ;;
            shed) _ckptfs_complete_words $'optimizer\noff' "$word" ;;
            trash) _ckptfs_complete_words $'on\noff' "$word" ;;
            sharing) _ckptfs_complete_words $'backward\nforward\noff' "$word" ;;
            log) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
        esac
        return
    fi
    if [ "$COMP_CWORD" -eq 1 ]; then
        _ckptfs_complete_words $'mount\numount\nstatus\nrestart\ndu\ngc\nverify\nfsck\nassemble\nexport\ninspect\nls\npolicy\npin\nunpin\ntemplate\nundelete\nevents\nwait\n--help\n--version' "$word"
        return
    fi
    case $command in
        mount)
            case $previous:$word in
                -o:* | --options:*) _ckptfs_mount_options "$word" ;;
                *:-*) _ckptfs_complete_words $'--foreground\n--options\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        du)
            case $word in
                -*) _ckptfs_complete_words $'--summarize\n--max-depth\n--bytes\n--json\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    ;;
            esac
            ;;
        assemble)
            case $previous:$word in
                -d:* | --dtype:*) _ckptfs_complete_words $'bf16\nfp16\nfp32\nkeep' "$word" ;;
                -t:* | --format:*) _ckptfs_complete_words $'safetensors\nbin' "$word" ;;
                *:-*)
                    _ckptfs_complete_words \
                        $'--plain\n--output\n--dtype\n--max-shard-size\n--format\n--fp32\n--force\n--check\n--base\n--python\n--timeout\n--help' \
                        "$word"
                    ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    ;;
            esac
            ;;
        export)
            case $previous:$word in
                -d:* | --dtype:*) _ckptfs_complete_words $'auto\nkeep\nbf16\nfp16\nfp32' "$word" ;;
                -t:* | --format:*) _ckptfs_complete_words $'safetensors\nbin' "$word" ;;
                -p:* | --pick:*) _ckptfs_complete_words $'latest\nbest' "$word" ;;
                -l:* | --link:*) _ckptfs_complete_words $'latest\nbest' "$word" ;;
                *:-*)
                    _ckptfs_complete_words \
                        $'--name\n--link\n--pick\n--expect\n--dtype\n--max-shard-size\n--format\n--all\n--verify\n--force\n--no-wait\n--no-links\n--json\n--quiet\n--help' \
                        "$word"
                    ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        ls)
            case $word in
                -*) _ckptfs_complete_words $'--json\n--why\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        inspect)
            case $word in
                -*) _ckptfs_complete_words $'--json\n--tensors\n--check\n--base\n--python\n--timeout\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    ;;
            esac
            ;;
        policy)
            case $COMP_CWORD:${COMP_WORDS[2]-}:$word in
                *:-*) _ckptfs_complete_words $'--json\n--dry-run\n--help' "$word" ;;
                2:*) _ckptfs_complete_words $'show\nset\nunset\napply' "$word" ;;
                3:*)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
                *:set:*)
                    compopt -o nospace
                    _ckptfs_complete_words "${policy_keys//$'\n'/=$'\n'}=" "$word"
                    ;;
                *:unset:*) _ckptfs_complete_words "$policy_keys" "$word" ;;
            esac
            ;;
        pin | unpin)
            case $word in
                -*) _ckptfs_complete_words --help "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    ;;
            esac
            ;;
        events)
            case $previous:$word in
                -s:* | --since:*) ;;
                *:-*) _ckptfs_complete_words $'--json\n--follow\n--since\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        wait)
            case $previous:$word in
                -f:* | --for:*) _ckptfs_complete_words $'complete\ndurable\nexported\nweights' "$word" ;;
                -t:* | --timeout:*) ;;
                *:-*) _ckptfs_complete_words $'--for\n--timeout\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -f -- "$word")
                    ;;
            esac
            ;;
        template)
            case $word in
                -*) _ckptfs_complete_words $'--show\n--remove\n--json\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        undelete)
            case $word in
                -*) _ckptfs_complete_words $'--to\n--drop\n--list\n--json\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        fsck)
            case $word in
                -*) _ckptfs_complete_words $'--json\n--repair\n--rebuild\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mapfile -t COMPREPLY < <(compgen -d -- "$word")
                    ;;
            esac
            ;;
        umount | restart | status | gc | verify)
            case $command:$word in
                gc:-*) _ckptfs_complete_words $'--dry-run\n--json\n--timeout\n--help' "$word" ;;
                status:-*) _ckptfs_complete_words $'--json\n--watch\n--interval\n--timeout\n--help' "$word" ;;
                verify:-*) _ckptfs_complete_words $'--json\n--repair\n--rate\n--help' "$word" ;;
                *:-*) _ckptfs_complete_words $'--timeout\n--help' "$word" ;;
                *)
                    compopt -o filenames
                    mountpoints=$(_ckptfs_mounts)
                    _ckptfs_complete_words "$mountpoints" "$word"
                    ;;
            esac
            ;;
    esac
}

complete -F _ckptfs ckptfs
