# Becomes the systemd of a Debian: run in namespaces of its own for mounts, processes, names and control groups.
# usage: boot.sh DEBIAN SCRATCH NAME MANIFESTS
#
# DEBIAN stays as it is: what changes lies in memory and goes with the last process.
set -e
debian=$1 scratch=$2 name=$3 manifests=$4

mkdir -p "$scratch"
mount -t tmpfs tmpfs "$scratch"
mkdir "$scratch/changes" "$scratch/work" "$scratch/root"
mount -t overlay overlay -o "lowerdir=$debian,upperdir=$scratch/changes,workdir=$scratch/work" "$scratch/root"
cd "$scratch/root"

mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
# With the mode that systemd gives it on a host.
mount -t bpf bpf sys/fs/bpf -o mode=700
mount -t tmpfs tmpfs run -o mode=755
mount -t tmpfs tmpfs tmp -o mode=1777
mount -t tmpfs tmpfs dev -o mode=755
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts devpts dev/pts -o newinstance,ptmxmode=0666
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
# For a console, which nobody reads.
touch dev/console
mount --bind /dev/null dev/console

mkdir -p etc/roadstead/manifests
mount --bind "$manifests" etc/roadstead/manifests
hostname "$name"
echo "$name" >etc/hostname
: >etc/machine-id

mkdir -p outside
pivot_root . outside
umount -l /outside
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=lab TERM=dumb /lib/systemd/systemd --show-status=no
