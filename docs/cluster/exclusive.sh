#!/bin/bash
# exclusive.sh FOLDER [NAMES]: how many of the names in FOLDER this machine was the first to create, by hard links as
# depthsieve does. Started on several machines at once the numbers add up to NAMES, or the folder cannot hold a store.
mine=$(mktemp "$1/mine-XXXXXXXX")
won=0
for number in $(seq "${2:-1000}"); do
    if ln "$mine" "$1/name-$number" 2>/dev/null; then won=$((won + 1)); fi
done
rm "$mine"
echo "$won"
