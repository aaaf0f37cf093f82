#!/bin/sh
# Inserts the spare modules of the image (those that init left alone), in the right order.
while read -r module; do
  name=$(basename "$module" .ko | tr - _)
  [ -e "/sys/module/$name" ] || insmod "/modules/$module" || exit 1
done </modules/all
