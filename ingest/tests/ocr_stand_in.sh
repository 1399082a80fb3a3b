#!/bin/sh
# Stands in for tesseract in tests: says what it was given, or fails as the language orders. Notes its runs where a file
# for that lies beside it.
kind=$(head -c 2)
cat >/dev/null
runs="$(dirname "$0")/runs"
if [ -f "$runs" ]; then echo run >>"$runs"; fi
case "$*" in
*hang*) exec sleep 60 ;;
*slow*) sleep 0.5 ;;
*fail*) exit 1 ;;
*flood*) exec cat /dev/zero ;;
*blank*) exit 0 ;;
esac
printf 'A letter was recog-\nnised in %s.\n\nWith %s.\n' "$kind" "$*"
