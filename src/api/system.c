// SPDX-License-Identifier: MIT
/* Requests on the system descriptor (api.rst, "System ioctls"). */
#include <errno.h>
#include <stdlib.h>

#include "api/api.h"
#include "api/lists.h"
#include "cpu/cpuid.h"
#include "cpu/msr.h"
#include "cpu/xsave.h"
#include "vcpu/hyperv.h"

static long get_api_version(void *obj, unsigned long arg, void *data)
{
	return arg ? -EINVAL : KVM_API_VERSION;
}

static long create_vm(void *obj, unsigned long arg, void *data)
{
	struct um_system *s = obj;
	struct um_vm_config cfg = s->cfg;
	struct um_vm *vm;
	int fd;

	if (arg) /* the one type of machine */
		return -EINVAL;
	cfg.tsc_khz = um_host_tsc_khz();
	fd = um_vm_create(&cfg, &vm);
	if (fd)
		return fd;
	fd = um_vm_fd(vm);
	if (fd < 0)
		um_vm_put(vm);
	return fd;
}

static long check_extension(void *obj, unsigned long arg, void *data)
{
	return um_check_extension(NULL, arg);
}

static long get_vcpu_mmap_size(void *obj, unsigned long arg, void *data)
{
	return arg ? -EINVAL : (long)(UM_RUN_PAGES * UM_PAGE_SIZE);
}

/* A list of MSR indices: the number is always told, and -E2BIG if there was no room for them. */
static long msr_list(unsigned long arg, unsigned (*list)(u32 *, unsigned))
{
	u32 room, n, indices[256];

	if (um_copy_in_user(&room, arg, sizeof(room)))
		return -EFAULT;
	n = list(indices, ARRAY_SIZE(indices));
	if (um_copy_out_user(arg, &n, sizeof(n)))
		return -EFAULT;
	if (room < n)
		return -E2BIG;
	return um_copy_out_user(arg + offsetof(struct kvm_msr_list, indices), indices,
				n * sizeof(indices[0]));
}

static long get_msr_index_list(void *obj, unsigned long arg, void *data)
{
	return msr_list(arg, um_msr_index_list);
}

static long get_msr_feature_index_list(void *obj, unsigned long arg, void *data)
{
	return msr_list(arg, um_msr_feature_list);
}

static bool feature_msr(void *ctx, u32 msr, u64 *val)
{
	return um_msr_feature(msr, val);
}

static long get_msrs(void *obj, unsigned long arg, void *data)
{
	return um_api_get_msrs(arg, feature_msr, NULL);
}

static int supported(void *ctx, struct kvm_cpuid_entry2 *e, unsigned max)
{
	return um_cpuid_supported(e, max);
}

static int emulated(void *ctx, struct kvm_cpuid_entry2 *e, unsigned max)
{
	return um_cpuid_emulated(e, max);
}

static int supported_hv(void *ctx, struct kvm_cpuid_entry2 *e, unsigned max)
{
	return um_hv_supported_cpuid(true, e, max);
}

static long get_supported_cpuid(void *obj, unsigned long arg, void *data)
{
	return um_api_get_cpuid(arg, supported, NULL);
}

static long get_emulated_cpuid(void *obj, unsigned long arg, void *data)
{
	return um_api_get_cpuid(arg, emulated, NULL);
}

static long get_supported_hv_cpuid(void *obj, unsigned long arg, void *data)
{
	return um_api_get_cpuid(arg, supported_hv, NULL);
}

static long get_mce_cap(void *obj, unsigned long arg, void *data)
{
	*(u64 *)data = UM_MCG_CAP_SUPPORTED;
	return 0;
}

/* The one attribute: which components of XSAVE a guest may be given. */
static long has_device_attr(void *obj, unsigned long arg, void *data)
{
	const struct kvm_device_attr *a = data;

	return a->group || a->attr != KVM_X86_XCOMP_GUEST_SUPP ? -ENXIO : 0;
}

static long get_device_attr(void *obj, unsigned long arg, void *data)
{
	const struct kvm_device_attr *a = data;
	u64 supported = um_xsave_layout()->supported;
	long err = has_device_attr(obj, arg, data);

	return err ? err : um_copy_out_user(a->addr, &supported, sizeof(supported));
}

static const struct um_ioctl system_ioctls[] = {
	UM_IOCTL(KVM_GET_API_VERSION, VAL, char, get_api_version),
	UM_IOCTL(KVM_CREATE_VM, VAL, char, create_vm),
	UM_IOCTL(KVM_CHECK_EXTENSION, VAL, char, check_extension),
	UM_IOCTL(KVM_GET_VCPU_MMAP_SIZE, VAL, char, get_vcpu_mmap_size),
	UM_IOCTL(KVM_GET_MSR_INDEX_LIST, RAW, char, get_msr_index_list),
	UM_IOCTL(KVM_GET_MSR_FEATURE_INDEX_LIST, RAW, char, get_msr_feature_index_list),
	UM_IOCTL(KVM_GET_MSRS, RAW, char, get_msrs),
	UM_IOCTL(KVM_GET_SUPPORTED_CPUID, RAW, char, get_supported_cpuid),
	UM_IOCTL(KVM_GET_EMULATED_CPUID, RAW, char, get_emulated_cpuid),
	UM_IOCTL(KVM_GET_SUPPORTED_HV_CPUID, RAW, char, get_supported_hv_cpuid),
	UM_IOCTL(KVM_HAS_DEVICE_ATTR, IN, struct kvm_device_attr, has_device_attr),
	UM_IOCTL(KVM_GET_DEVICE_ATTR, IN, struct kvm_device_attr, get_device_attr),
	UM_IOCTL(KVM_X86_GET_MCE_CAP_SUPPORTED, OUT, u64, get_mce_cap),
};

long um_system_ioctl(struct um_system *s, u32 cmd, unsigned long arg)
{
	return um_ioctl_dispatch(system_ioctls, ARRAY_SIZE(system_ioctls), s, cmd, arg, -EINVAL);
}
