// SPDX-License-Identifier: MIT
/* The two tables of four functions, and the choice between them. */
#include "accel.h"

#include <cpuid.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "msg.h"
#include "umbra.h"

static int host_open(void)
{
	return open("/dev/kvm", O_RDWR | O_CLOEXEC);
}

static int host_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg);
}

const struct accel accel_soft = {
	.name = "soft",
	.open = umbra_open,
	.ioctl = umbra_ioctl,
	.mmap = umbra_mmap,
	.close = umbra_close,
};

const struct accel accel_host = {
	.name = "host",
	.open = host_open,
	.ioctl = host_ioctl,
	.mmap = mmap,
	.close = close,
};

/* SDM vol. 2 CPUID leaf 1, ECX bit 5: VMX.  APM vol. 3 leaf 8000_0001h, ECX bit 2: SVM. */
static bool cpu_has_virtualization(void)
{
	unsigned a, b, c, d;

	if (__get_cpuid(1, &a, &b, &c, &d) && (c & (1u << 5)))
		return true;
	return __get_cpuid(0x80000001, &a, &b, &c, &d) && (c & (1u << 2));
}

bool accel_host_usable(const char **why)
{
	int kvm, vm;

	if (!cpu_has_virtualization()) {
		*why = "the CPU has neither VMX nor SVM";
		return false;
	}
	kvm = host_open();
	if (kvm < 0) {
		*why = "/dev/kvm cannot be opened";
		return false;
	}
	if (host_ioctl(kvm, KVM_GET_API_VERSION, NULL) != KVM_API_VERSION) {
		close(kvm);
		*why = "/dev/kvm does not speak version 12 of the API";
		return false;
	}
	vm = host_ioctl(kvm, KVM_CREATE_VM, NULL);
	close(kvm);
	if (vm < 0) {
		*why = "/dev/kvm cannot create a VM";
		return false;
	}
	close(vm);
	*why = "/dev/kvm works";
	return true;
}

const struct accel *accel_pick(enum accel_choice choice, bool verbose)
{
	const struct accel *a = &accel_soft;
	const char *why = "asked for";

	if (choice == ACCEL_HOST || (choice == ACCEL_AUTO && accel_host_usable(&why)))
		a = &accel_host;
	if (verbose)
		msg("accelerator: %s (%s)", a->name, why);
	return a;
}
