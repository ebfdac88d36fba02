#!/usr/bin/env bash
# Builds fargan_demo, the vocoder of the Opus library, and dred_demo (see dred.c), with their weights: benchmarks/fargan.sh FOLDER
# The source is that of Debian 13 (opus 1.5.2), got by apt from the mirror of this machine, whose settings stay as they are.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
mirror=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/$' | head -n 1)
mkdir -p "$1/apt/lists/partial" "$1/apt/cache/archives/partial"
cd "$1"
folder=$PWD/apt
cat > "$folder/opus.sources" <<SOURCES
Types: deb-src
URIs: $mirror
Suites: trixie
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
options=(-o "Dir::Etc::sourcelist=$folder/opus.sources" -o Dir::Etc::sourceparts=/dev/null
  -o "Dir::State::lists=$folder/lists" -o "Dir::Cache=$folder/cache")
apt-get "${options[@]}" update
apt-get "${options[@]}" source --download-only opus=1.5.2-2
tar xf opus_1.5.2.orig.tar.gz
cd opus-1.5.2
./configure --enable-deep-plc --enable-dred --disable-shared --disable-doc CFLAGS="-O2"
make -j2 libopus.la fargan_demo
cp fargan_demo ..
gcc -O2 -DHAVE_CONFIG_H -I. -Iinclude -Icelt -Idnn -Isilk "$here/dred.c" .libs/libopus.a -lm -o ../dred_demo
