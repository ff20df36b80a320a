// SPDX-License-Identifier: MIT
/* Requests: what the kernel answers to good and bad ones, per descriptor. */
#include <limits.h>

#include "guest.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include <linux/ioctl.h>

#define BAD_POINTER 8

/* ---- errno tables ---- */

struct refusal {
	unsigned long request;
	uintptr_t arg;
	int err;
};

static void check_refusals(int fd, const struct refusal *r, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		errno = 0;
		if (io(fd, r[i].request, r[i].arg) != -1 || errno != r[i].err)
			fail_msg("row %zu: request %#lx: errno %d, not %d", i, r[i].request, errno,
				 r[i].err);
	}
}

#define CHECK_REFUSALS(fd, table) check_refusals(fd, table, sizeof(table) / sizeof((table)[0]))

static void test_system_refusals(void **state)
{
	static const struct refusal table[] = {
		{ KVM_GET_API_VERSION, 1, EINVAL },
		{ KVM_CREATE_VM, 1, EINVAL },
		{ KVM_GET_VCPU_MMAP_SIZE, 1, EINVAL },
		{ KVM_GET_MSR_INDEX_LIST, BAD_POINTER, EFAULT },
		{ KVM_GET_MSR_INDEX_LIST, 0, EFAULT },
		{ KVM_GET_MSR_FEATURE_INDEX_LIST, BAD_POINTER, EFAULT },
		{ KVM_GET_MSRS, BAD_POINTER, EFAULT },
		{ KVM_GET_SUPPORTED_CPUID, BAD_POINTER, EFAULT },
		{ KVM_GET_EMULATED_CPUID, BAD_POINTER, EFAULT },
		{ KVM_X86_GET_MCE_CAP_SUPPORTED, BAD_POINTER, EFAULT },
		{ KVM_RUN, 0, EINVAL },
		{ KVM_CREATE_VCPU, 0, EINVAL },
		{ 0, 0, EINVAL },
		{ _IO('x', 1), 0, EINVAL },
	};
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	CHECK_REFUSALS(g.sys, table);
	guest_stop(&g);
}

static void test_vm_refusals(void **state)
{
	static const struct kvm_enable_cap flags = { .cap = KVM_CAP_X2APIC_API, .flags = 1 };
	static const struct kvm_enable_cap unknown = { .cap = 0x7fffffff };
	static const struct kvm_enable_cap quirks = { .cap = KVM_CAP_DISABLE_QUIRKS2,
						      .args = { 1ull << 63 } };
	static const struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP,
						     .args = { 1 << 20 } };
	static const struct kvm_userspace_memory_region unaligned = { .memory_size = 0x1001 };
	static const struct kvm_irq_level line = { .irq = 1 };
	static const struct kvm_msi msi = { .address_lo = 0xfee00000 };
	static const struct kvm_irq_routing routing = { .nr = 0 };
	static const struct kvm_pit_config pit = { .flags = 0 };
	static const struct kvm_irqchip chip = { .chip_id = 0 };
	static const struct kvm_pit_state2 pit2 = { .flags = 0 };
	static const struct kvm_reinject_control reinject = { .pit_reinject = 0 };
	static const struct kvm_clock_data clock = { .flags = 1 };
	static const struct refusal table[] = {
		{ KVM_CREATE_VCPU, 1 << 20, EINVAL },
		{ KVM_ENABLE_CAP, BAD_POINTER, EFAULT },
		{ KVM_ENABLE_CAP, (uintptr_t)&flags, EINVAL },
		{ KVM_ENABLE_CAP, (uintptr_t)&unknown, EINVAL },
		{ KVM_ENABLE_CAP, (uintptr_t)&quirks, EINVAL },
		{ KVM_ENABLE_CAP, (uintptr_t)&split, EINVAL },
		{ KVM_SET_USER_MEMORY_REGION, BAD_POINTER, EFAULT },
		{ KVM_SET_USER_MEMORY_REGION, (uintptr_t)&unaligned, EINVAL },
		{ KVM_GET_DIRTY_LOG, BAD_POINTER, EFAULT },
		{ KVM_SET_TSS_ADDR, 0xfffff000, EINVAL },
		{ KVM_SET_IDENTITY_MAP_ADDR, BAD_POINTER, EFAULT },
		{ KVM_SET_NR_MMU_PAGES, 10, EINVAL },
		{ KVM_IRQ_LINE, (uintptr_t)&line, ENXIO },
		{ KVM_IRQ_LINE_STATUS, (uintptr_t)&line, ENXIO },
		{ KVM_SIGNAL_MSI, (uintptr_t)&msi, EINVAL },
		{ KVM_SET_GSI_ROUTING, (uintptr_t)&routing, EINVAL },
		{ KVM_CREATE_PIT2, (uintptr_t)&pit, ENOENT },
		{ KVM_CREATE_PIT, 0, ENOENT },
		{ KVM_GET_IRQCHIP, (uintptr_t)&chip, ENXIO },
		{ KVM_SET_IRQCHIP, (uintptr_t)&chip, ENXIO },
		{ KVM_GET_PIT2, (uintptr_t)&pit2, ENXIO },
		{ KVM_SET_PIT2, (uintptr_t)&pit2, ENXIO },
		{ KVM_REINJECT_CONTROL, (uintptr_t)&reinject, ENXIO },
		{ KVM_SET_CLOCK, (uintptr_t)&clock, EINVAL },
		{ KVM_SET_CLOCK, BAD_POINTER, EFAULT },
		{ KVM_GET_CLOCK, BAD_POINTER, EFAULT },
		{ KVM_SET_TSC_KHZ, 1, EINVAL },
		{ KVM_RUN, 0, ENOTTY },
		{ KVM_GET_API_VERSION, 0, ENOTTY },
		{ KVM_SET_MEMORY_ALIAS, 0, ENOTTY },
		{ 0, 0, ENOTTY },
		/* The low 16 bits are those of KVM_ENABLE_CAP and KVM_GET_TSC_KHZ. */
		{ _IOW(KVMIO, 0xa3, int), 0, ENOTTY },
	};
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	CHECK_REFUSALS(g.vm, table);
	guest_stop(&g);
}

static void test_vcpu_refusals(void **state)
{
	static const struct kvm_enable_cap split = { .cap = KVM_CAP_SPLIT_IRQCHIP };
	static const struct kvm_mp_state halted = { .mp_state = KVM_MP_STATE_HALTED };
	static const struct kvm_interrupt irq = { .irq = 256 };
	static const struct kvm_vcpu_events events = { .flags = 1u << 31 };
	static const struct kvm_vcpu_events nmi_exception = { .exception = { .injected = 1,
									     .nr = 2 } };
	static const struct kvm_debugregs dr7 = { .dr7 = 1ull << 32 };
	static const struct kvm_xcrs flags = { .flags = 1 };
	static const struct kvm_xcrs no_x87 = { .nr_xcrs = 1, .xcrs = { { .value = 2 } } };
	static const struct kvm_xcrs no_sse = { .nr_xcrs = 1, .xcrs = { { .value = 5 } } };
	static const struct kvm_msrs too_many = { .nmsrs = 256 };
	static const struct kvm_cpuid2 cpuid = { .nent = 257 };
	static const struct kvm_sregs2 sregs2 = { .flags = 2 };
	static const uint64_t mce = 33;
	static const struct kvm_x86_mce invalid = { .bank = 0 };
	static const struct refusal table[] = {
		{ KVM_RUN, 1, EINVAL },
		{ KVM_GET_REGS, BAD_POINTER, EFAULT },
		{ KVM_SET_REGS, BAD_POINTER, EFAULT },
		{ KVM_GET_SREGS, BAD_POINTER, EFAULT },
		{ KVM_SET_SREGS, BAD_POINTER, EFAULT },
		{ KVM_SET_SREGS2, (uintptr_t)&sregs2, EINVAL },
		{ KVM_ENABLE_CAP, (uintptr_t)&split, EINVAL },
		{ KVM_SET_MP_STATE, (uintptr_t)&halted, EINVAL },
		{ KVM_INTERRUPT, (uintptr_t)&irq, EINVAL },
		{ KVM_SET_VCPU_EVENTS, (uintptr_t)&events, EINVAL },
		{ KVM_SET_VCPU_EVENTS, (uintptr_t)&nmi_exception, EINVAL },
		{ KVM_SET_DEBUGREGS, (uintptr_t)&dr7, EINVAL },
		{ KVM_SET_XCRS, (uintptr_t)&flags, EINVAL },
		{ KVM_SET_XCRS, (uintptr_t)&no_x87, EINVAL },
		{ KVM_SET_XCRS, (uintptr_t)&no_sse, EINVAL },
		{ KVM_GET_MSRS, (uintptr_t)&too_many, E2BIG },
		{ KVM_SET_MSRS, (uintptr_t)&too_many, E2BIG },
		{ KVM_SET_MSRS, BAD_POINTER, EFAULT },
		{ KVM_SET_CPUID2, (uintptr_t)&cpuid, E2BIG },
		{ KVM_GET_LAPIC, BAD_POINTER, EINVAL },
		{ KVM_X86_SETUP_MCE, (uintptr_t)&mce, EINVAL },
		{ KVM_X86_SET_MCE, (uintptr_t)&invalid, EINVAL },
		{ KVM_SET_SIGNAL_MASK, BAD_POINTER, EFAULT },
		{ KVM_KVMCLOCK_CTRL, 0, EINVAL },
		{ KVM_CREATE_VCPU, 0, EINVAL },
		{ 0, 0, EINVAL },
		{ _IO('x', 1), 0, EINVAL },
	};
	static const uint8_t hlt[] = { 0xf4 };
	struct guest g;

	guest_start(&g, NO_CHIP, hlt, sizeof(hlt));
	CHECK_REFUSALS(g.vcpu, table);
	assert_exit(&g, KVM_EXIT_HLT); /* none of it did any harm */
	guest_stop(&g);
}

static void test_descriptors(void **state)
{
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	assert_errno(EBADF, io(-1, KVM_RUN, 0));
	assert_errno(EBADF, io(STDIN_FILENO, KVM_RUN, 0));
	assert_errno(EBADF, io(1 << 30, KVM_RUN, 0));
	assert_errno(EBADF, umbra_close(STDIN_FILENO));
	assert_ptr_equal(umbra_mmap(NULL, 4096, PROT_READ, MAP_SHARED, g.vm, 0), MAP_FAILED);
	assert_int_equal(errno, ENODEV);
	assert_ptr_equal(umbra_mmap(NULL, 4096, PROT_READ, MAP_SHARED, -1, 0), MAP_FAILED);
	assert_int_equal(errno, EBADF);
	guest_stop(&g);
	assert_errno(EBADF, io(g.vm, KVM_CHECK_EXTENSION, KVM_CAP_IRQCHIP));
	assert_errno(EBADF, umbra_close(g.vm));
}

/* A vCPU keeps its VM, whatever is closed first. */
static void test_vcpu_outlives_vm_descriptor(void **state)
{
	static const uint8_t hlt[] = { 0xf4 };
	struct guest g;

	guest_start(&g, NO_CHIP, hlt, sizeof(hlt));
	assert_int_equal(umbra_close(g.vm), 0);
	assert_exit(&g, KVM_EXIT_HLT);
	assert_int_equal(umbra_close(g.vcpu), 0);
	assert_int_equal(g.run->exit_reason, KVM_EXIT_HLT); /* the mapping too */
	assert_int_equal(umbra_close(g.sys), 0);
	munmap(g.run, 3 * 4096);
	munmap(g.mem, GUEST_MEM);
}

static unsigned count_descriptors(void)
{
	DIR *d = opendir("/proc/self/fd");
	unsigned n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void test_no_leak(void **state)
{
	static const uint8_t hlt[] = { 0xf4 };
	unsigned before = count_descriptors();

	for (unsigned i = 0; i < 30; i++) {
		struct guest g;

		guest_start(&g, i % 3, hlt, sizeof(hlt));
		if (i % 3 == NO_CHIP)
			assert_exit(&g, KVM_EXIT_HLT);
		guest_stop(&g);
	}
	assert_int_equal(count_descriptors(), before);
}

static void test_environment(void **state)
{
	setenv("UMBRA_MMU", "sideways", 1);
	assert_errno(EINVAL, umbra_open());
	unsetenv("UMBRA_MMU");
	setenv("UMBRA_TRACE", "exits,nonsense", 1);
	assert_errno(EINVAL, umbra_open());
	unsetenv("UMBRA_TRACE");
	setenv("UMBRA_ENGINE", "steam", 1);
	assert_errno(EINVAL, umbra_open());
	unsetenv("UMBRA_ENGINE");
}

/* ---- capabilities ---- */

static void test_capabilities(void **state)
{
	/* What VMMs refuse to start without; and values that some compare exactly. */
	static const struct {
		int cap, min, max;
	} table[] = {
		{ KVM_CAP_USER_MEMORY, 1, 1 },
		{ KVM_CAP_DESTROY_MEMORY_REGION_WORKS, 1, 1 },
		{ KVM_CAP_JOIN_MEMORY_REGIONS_WORKS, 1, 1 },
		{ KVM_CAP_INTERNAL_ERROR_DATA, 1, 1 },
		{ KVM_CAP_SET_TSS_ADDR, 1, 1 },
		{ KVM_CAP_EXT_CPUID, 1, 1 },
		{ KVM_CAP_MP_STATE, 1, 1 },
		{ KVM_CAP_SIGNAL_MSI, 1, 1 },
		{ KVM_CAP_IRQ_ROUTING, 1024, 4096 },
		{ KVM_CAP_DEBUGREGS, 1, 1 },
		{ KVM_CAP_XSAVE, 1, 1 },
		{ KVM_CAP_XSAVE2, 4096, 4096 },
		{ KVM_CAP_VCPU_EVENTS, 1, 1 },
		{ KVM_CAP_X86_ROBUST_SINGLESTEP, 1, 1 },
		{ KVM_CAP_MCE, 10, 32 },
		{ KVM_CAP_ADJUST_CLOCK, 14, 14 },
		{ KVM_CAP_SET_IDENTITY_MAP_ADDR, 1, 1 },
		{ KVM_CAP_IRQCHIP, 1, 1 },
		{ KVM_CAP_PIT2, 1, 1 },
		{ KVM_CAP_NR_VCPUS, 1, 1024 },
		{ KVM_CAP_MAX_VCPUS, 8, 1024 },
		{ KVM_CAP_NR_MEMSLOTS, 509, 32764 },
		{ KVM_CAP_IMMEDIATE_EXIT, 1, 1 },
		{ KVM_CAP_SYNC_REGS, 7, 7 },
		{ KVM_CAP_X86_SMM, 1, 1 },
		{ KVM_CAP_MULTI_ADDRESS_SPACE, 2, 2 },
		/* Not there. */
		{ KVM_CAP_NESTED_STATE, 0, 0 },
		{ KVM_CAP_HYPERV_ENLIGHTENED_VMCS, 0, 0 },
		{ KVM_CAP_PPC_SMT, 0, 0 },
		{ 0x7fffffff, 0, 0 },
		{ -1, 0, 0 },
	};
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	assert_int_equal(io(g.sys, KVM_GET_API_VERSION, 0), 12);
	assert_int_equal(io(g.sys, KVM_GET_VCPU_MMAP_SIZE, 0), 3 * 4096);
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		int s = io(g.sys, KVM_CHECK_EXTENSION, table[i].cap);

		if (s < table[i].min || s > table[i].max)
			fail_msg("capability %d is %d", table[i].cap, s);
		assert_int_equal(io(g.vm, KVM_CHECK_EXTENSION, table[i].cap), s);
	}
	guest_stop(&g);
}

static void test_lists_tell_their_size(void **state)
{
	struct {
		struct kvm_msr_list head;
		uint32_t index[256];
	} list = { 0 };
	struct {
		struct kvm_cpuid2 head;
		struct kvm_cpuid_entry2 e[256];
	} cpuid = { .head = { .nent = 1 } };
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	assert_errno(E2BIG, io(g.sys, KVM_GET_MSR_INDEX_LIST, &list));
	assert_true(list.head.nmsrs > 20);
	assert_int_equal(list.index[0], 0);
	assert_int_equal(io(g.sys, KVM_GET_MSR_INDEX_LIST, &list), 0);
	assert_int_not_equal(list.index[0], 0);
	assert_errno(E2BIG, io(g.sys, KVM_GET_SUPPORTED_CPUID, &cpuid));
	assert_int_equal(cpuid.head.nent, 1);
	cpuid.head.nent = 1u << 31; /* more than there can be is fine */
	assert_int_equal(io(g.sys, KVM_GET_SUPPORTED_CPUID, &cpuid), 0);
	assert_true(cpuid.head.nent > 10 && cpuid.head.nent < 100);
	guest_stop(&g);
}

/* ---- the VM's state ---- */

static void test_irqchip_and_vcpus(void **state)
{
	struct guest g;
	int a, b;

	guest_open_vm(&g, FULL_CHIP);
	assert_errno(EEXIST, io(g.vm, KVM_CREATE_IRQCHIP, 0));
	assert_int_equal(io(g.vm, KVM_SET_BOOT_CPU_ID, 3), 0);
	a = io(g.vm, KVM_CREATE_VCPU, 3);
	assert_true(a >= 0);
	assert_errno(EBUSY, io(g.vm, KVM_SET_BOOT_CPU_ID, 0));
	assert_errno(EEXIST, io(g.vm, KVM_CREATE_VCPU, 3));
	b = io(g.vm, KVM_CREATE_VCPU, 0);
	assert_true(b >= 0);
	for (int i = 0; i < 2; i++) {
		struct kvm_mp_state mp;
		struct kvm_sregs sregs;

		assert_int_equal(io(i ? a : b, KVM_GET_MP_STATE, &mp), 0);
		assert_int_equal(io(i ? a : b, KVM_GET_SREGS, &sregs), 0);
		assert_int_equal(mp.mp_state,
				 i ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED);
		assert_int_equal(sregs.apic_base, i ? 0xfee00900 : 0xfee00800);
	}
	assert_int_equal(umbra_close(a), 0);
	assert_int_equal(umbra_close(b), 0);
	guest_stop(&g);

	guest_open_vm(&g, NO_CHIP);
	a = io(g.vm, KVM_CREATE_VCPU, 0);
	assert_errno(EINVAL, io(g.vm, KVM_CREATE_IRQCHIP, 0));
	assert_int_equal(umbra_close(a), 0);
	guest_stop(&g);
}

static void test_pit_and_irqchip_state(void **state)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct kvm_pit_state2 s2, back;
	struct kvm_irqchip chip = { .chip_id = KVM_IRQCHIP_IOAPIC }, again;
	struct guest g;

	guest_open_vm(&g, FULL_CHIP);
	assert_errno(ENXIO, io(g.vm, KVM_GET_PIT2, &s2));
	assert_int_equal(io(g.vm, KVM_CREATE_PIT2, &pit), 0);
	assert_errno(EEXIST, io(g.vm, KVM_CREATE_PIT2, &pit));
	assert_int_equal(io(g.vm, KVM_GET_PIT2, &s2), 0);
	s2.channels[2].count = 0x4321;
	assert_int_equal(io(g.vm, KVM_SET_PIT2, &s2), 0);
	assert_int_equal(io(g.vm, KVM_GET_PIT2, &back), 0);
	assert_int_equal(back.channels[2].count, 0x4321);
	assert_int_equal(io(g.vm, KVM_GET_IRQCHIP, &chip), 0);
	chip.chip.ioapic.redirtbl[5].bits = 0x10031; /* vector 0x31, masked */
	assert_int_equal(io(g.vm, KVM_SET_IRQCHIP, &chip), 0);
	again.chip_id = KVM_IRQCHIP_IOAPIC;
	assert_int_equal(io(g.vm, KVM_GET_IRQCHIP, &again), 0);
	assert_int_equal(again.chip.ioapic.redirtbl[5].bits, 0x10031);
	chip.chip_id = 7;
	assert_errno(EINVAL, io(g.vm, KVM_GET_IRQCHIP, &chip));
	guest_stop(&g);
}

static void test_clock(void **state)
{
	struct kvm_clock_data a, b, set = { .clock = 1000000000000ull };
	struct guest g;

	guest_open_vm(&g, NO_CHIP);
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &a), 0);
	assert_true(a.clock < 60000000000ull); /* starts with the VM */
	assert_true(a.flags & KVM_CLOCK_TSC_STABLE);
	assert_true(a.realtime > 1500000000000000000ull);
	usleep(2000);
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &b), 0);
	assert_true(b.clock >= a.clock + 2000000);
	assert_int_equal(io(g.vm, KVM_SET_CLOCK, &set), 0);
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &b), 0);
	assert_true(b.clock >= set.clock && b.clock < set.clock + 60000000000ull);
	/* Time that passed since it was saved counts. */
	set.flags = KVM_CLOCK_REALTIME;
	set.realtime = b.realtime - 5000000000ull;
	assert_int_equal(io(g.vm, KVM_SET_CLOCK, &set), 0);
	assert_int_equal(io(g.vm, KVM_GET_CLOCK, &b), 0);
	assert_true(b.clock >= set.clock + 5000000000ull);
	guest_stop(&g);
}

static void test_mmu_pages_and_addresses(void **state)
{
	uint64_t addr = 0xfffbc000;
	struct guest g;
	int vcpu;

	guest_open_vm(&g, NO_CHIP);
	assert_int_equal(io(g.vm, KVM_SET_NR_MMU_PAGES, 1000), 0);
	assert_int_equal(io(g.vm, KVM_GET_NR_MMU_PAGES, 0), 1000);
	/* More than the answer has room for. */
	assert_int_equal(io(g.vm, KVM_SET_NR_MMU_PAGES, 1ul << 63), 0);
	assert_int_equal(io(g.vm, KVM_GET_NR_MMU_PAGES, 0), INT_MAX);
	assert_int_equal(io(g.vm, KVM_SET_TSS_ADDR, 0xfffbd000), 0);
	assert_int_equal(io(g.vm, KVM_SET_IDENTITY_MAP_ADDR, &addr), 0);
	vcpu = io(g.vm, KVM_CREATE_VCPU, 0);
	assert_errno(EINVAL, io(g.vm, KVM_SET_IDENTITY_MAP_ADDR, &addr));
	assert_int_equal(umbra_close(vcpu), 0);
	guest_stop(&g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_system_refusals),
		cmocka_unit_test(test_vm_refusals),
		cmocka_unit_test(test_vcpu_refusals),
		cmocka_unit_test(test_descriptors),
		cmocka_unit_test(test_vcpu_outlives_vm_descriptor),
		cmocka_unit_test(test_no_leak),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_capabilities),
		cmocka_unit_test(test_lists_tell_their_size),
		cmocka_unit_test(test_irqchip_and_vcpus),
		cmocka_unit_test(test_pit_and_irqchip_state),
		cmocka_unit_test(test_clock),
		cmocka_unit_test(test_mmu_pages_and_addresses),
	};

	guest_save_signals();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
