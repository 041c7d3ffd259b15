#!/bin/sh
# Prints the ten slowest tests of a JUnit report that nextest wrote, slowest first.
set -eu
sed -n 's/.*<testcase name="\([^"]*\)" classname="\([^"]*\)".* time="\([0-9.]*\)".*/\3 s  \2 \1/p' "$1" | sort -rn | head -n 10
