#!/usr/bin/env bash
# The tests, started as they are on other machines. What a try is called, and what it does:
#
#   order        in random order; ORDER=SEED takes that order again
#   colour       FORCE_COLOR=1, as hosted CI sets it
#   background   SIGINT and SIGHUP ignored, as in the background of a script and under nohup
#   path         temporary files in a folder whose name has blanks and letters outside ASCII
#   umask        umask 077
#   language     LC_ALL=C
#   user         a user without rights, or root without its capabilities; skipped where neither can be had
#
#   tests/tries.sh                          all but `user` at once, and then all at once
#   tests/tries.sh colour path              these at once
#   tests/tries.sh colour -- -x tests/cli   these, with words for pytest
#
# PYTHON names another interpreter than that of .venv.
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-$PWD/.venv/bin/python}
ORDER=${ORDER:-$RANDOM}
ALL=(order colour background path umask language)

names=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
    case " ${ALL[*]} user " in
    *" $1 "*) names+=("$1") ;;
    *) echo "there is no try $1; the tries are: ${ALL[*]} user" >&2 && exit 2 ;;
    esac
    shift
done
[ $# -eq 0 ] || shift
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
trap 'exit 143' TERM

# Say with which words a command is run without rights: an empty list for a user who has none.
as_user() {
    [ "$(id -u)" = 0 ] || return 0
    local nobody=(setpriv --reuid nobody --regid nogroup --clear-groups --bounding-set=-all --inh-caps=-all)
    for other in "${nobody[*]}" "setpriv --bounding-set=-all --inh-caps=-all"; do
        # In a shell of that user: it must find the interpreter, its packages and the tests.
        if $other bash -c '"$0" -c "import attengait, pytest" && [ -r tests/conftest.py ]' "$PYTHON" 2>/dev/null; then
            echo "$other"
            return
        fi
    done
    return 1
}

try() { # the names of tries, --, words for pytest
    local before=() words=(-q -p no:cacheprovider -n 2 --dist worksteal) user=() folder=$FOLDER
    while [ "$1" != -- ]; do
        case $1 in
        order) words+=(--random-order --random-order-seed="$ORDER") ;;
        colour) before+=(FORCE_COLOR=1) ;;
        background) trap '' INT HUP ;;
        path) folder="$FOLDER/some folder é" ;;
        umask) umask 077 ;;
        language) before+=(LC_ALL=C) ;;
        user)
            if ! read -ra user < <(as_user && echo); then
                echo "skipped: there is no user without rights here (setpriv is missing, or nobody may read this folder)"
                return 0
            fi
            ;;
        esac
        shift
    done
    shift
    mkdir -p "$folder"
    chmod 777 "$FOLDER" "$folder"
    "${user[@]}" env "${before[@]}" TMPDIR="$folder" "$PYTHON" -m pytest "${words[@]}" "$@"
}

status=0
run() { # in a shell of its own, which keeps no umask and no signals
    echo "== $* (ORDER=$ORDER)"
    (try "$@") || status=1
}
if [ ${#names[@]} -gt 0 ]; then
    run "${names[@]}" -- "$@"
else
    run "${ALL[@]}" -- "$@"
    run "${ALL[@]}" user -- "$@"
fi
exit "$status"
