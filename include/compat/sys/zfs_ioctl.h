/*
 * The parts of OpenZFS's ioctl and send-stream header that other public headers refer to and that
 * Debian's libzfslinux-dev leaves out. Only what pvol uses is declared.
 */
#ifndef COMPAT_SYS_ZFS_IOCTL_H
#define COMPAT_SYS_ZFS_IOCTL_H

#include <sys/dmu.h>
#include <sys/zio.h>

#endif
