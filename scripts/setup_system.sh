#!/usr/bin/env bash
# Installs what the software devices need: Mesa's software Vulkan and ARM emulation.
# Says in one line what is missing where it may not install. Never fails the set-up.
set -u

missing=()
have_library() { ldconfig -p 2>/dev/null | grep -q "$1"; }
have_library libvulkan.so.1 || missing+=(libvulkan1)
ls /usr/share/vulkan/icd.d/*.json >/dev/null 2>&1 || missing+=(mesa-vulkan-drivers)
command -v qemu-aarch64-static >/dev/null || missing+=(qemu-user-static)
[ -e /usr/aarch64-linux-gnu/lib/libc.so.6 ] || missing+=(libc6-arm64-cross)
[ -e /usr/aarch64-linux-gnu/lib/libstdc++.so.6 ] || missing+=(libstdc++6-arm64-cross)
[ -e /usr/aarch64-linux-gnu/lib/libgcc_s.so.1 ] || missing+=(libgcc-s1-arm64-cross)
command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)  # the one that takes plugins
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
python3 -c "import venv, ensurepip" 2>/dev/null || missing+=(python3-venv)
[ ${#missing[@]} -eq 0 ] && exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  sudo -n true 2>/dev/null && as_root=(sudo -n)
fi
if command -v apt-get >/dev/null && { [ "$(id -u)" -eq 0 ] || [ ${#as_root[@]} -gt 0 ]; }; then
  echo "setup: installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  install=("${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}")
  { "${as_root[@]}" apt-get update -qq && "${install[@]}"; } >/dev/null 2>&1 && exit 0
fi
echo "setup: some devices will be missing; to get them: apt-get install ${missing[*]}"
exit 0
