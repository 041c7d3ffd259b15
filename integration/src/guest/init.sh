#!/bin/sh
# The first program of a guest, and its only one. The kernel passes what it does not know of its command line as environment:
# NAME, ADDRESS and ADDRESS6 say who this host is. It comes up as a host does whose network is configured, with the part of
# its disk that stays over a reboot, and then runs what the laboratory sends by the second serial port: a line is a script in
# hexadecimal digits, the answer its status and how many bytes of output and of errors follow.
export PATH=/usr/local/bin:/opt/cni/bin:/usr/bin:/bin CNI_PATH=/opt/cni/bin LC_ALL=C
# All but what is there already: `sh`, `ip` and `ping` are those of the laboratory.
/bin/busybox --install -s /bin 2>/dev/null
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -t tmpfs tmp /tmp
# Kernels that have these built in have no such modules.
for module in virtio_pci virtio_net virtio_blk; do modprobe "$module" 2>/dev/null; done

mount -t ext4 /dev/vda /disk
for folder in /etc/crosshost /etc/cni /var/lib; do
    mkdir -p "/disk$folder"
    mount --bind "/disk$folder" "$folder"
done

hostname "$NAME"
ip link set lo up
ip link set eth0 name ens3
ip address add "$ADDRESS/24" dev ens3
ip address add "$ADDRESS6/80" dev ens3 nodad
ip link set ens3 up
ip route add default via 192.168.1.1
ip route add default via 2001:db8:192:168:1::1

exec </dev/ttyS1 >/dev/ttyS1
stty raw -echo
echo ready
while read -r line; do
    echo "$line" | xxd -r -p >/tmp/script
    /bin/sh -eu /tmp/script </dev/null >/tmp/output 2>/tmp/errors
    echo $? $(stat -c %s /tmp/output /tmp/errors)
    cat /tmp/output /tmp/errors
done
