#!/bin/sh
# Stands in for tesseract in tests: says what it was given, or fails as the language orders.
kind=$(head -c 2)
cat >/dev/null
case "$*" in
*hang*) exec sleep 60 ;;
*fail*) exit 1 ;;
*flood*) exec cat /dev/zero ;;
*blank*) exit 0 ;;
esac
printf 'A letter was recog-\nnised in %s.\n\nWith %s.\n' "$kind" "$*"
