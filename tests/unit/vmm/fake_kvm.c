// SPDX-License-Identifier: MIT
#include "fake_kvm.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/bits.h"

#define RUN_SIZE 8192u
#define DATA_AT	 4096u

struct fake_kvm fake;

static int system_fd, vm_fd, vcpu_fd[FAKE_MAX_VCPUS];
static struct kvm_run *vcpu_run[FAKE_MAX_VCPUS];

void fake_reset(const struct fake_step *script, unsigned nsteps)
{
	memset(&fake, 0, sizeof(fake));
	fake.script = script;
	fake.nsteps = nsteps;
	fake.refuse = -1;
}

static int new_fd(void)
{
	int fd = memfd_create("fake-kvm", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, RUN_SIZE), 0);
	fake.open_fds++;
	return fd;
}

static int fake_open(void)
{
	system_fd = new_fd();
	return system_fd;
}

static int fake_close(int fd)
{
	fake.open_fds--;
	return close(fd);
}

static void *fake_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	void *p = mmap(addr, len, prot, flags, fd, offset);

	for (unsigned i = 0; i < fake.nvcpus; i++)
		if (vcpu_fd[i] == fd)
			vcpu_run[i] = p;
	return p;
}

static int host_error(int err)
{
	errno = err;
	return -1;
}

static int supported_cpuid(struct kvm_cpuid2 *c)
{
	/* More than the first try has room for. */
	if (c->nent < 100)
		return host_error(E2BIG);
	memset(c->entries, 0, 4 * sizeof(c->entries[0]));
	c->entries[0] = (struct kvm_cpuid_entry2){ .function = 0, .eax = 0x1f };
	c->entries[1] = (struct kvm_cpuid_entry2){ .function = 1, .ebx = 0x55000800 };
	c->entries[2] = (struct kvm_cpuid_entry2){ .function = 0xb, .eax = 7, .ebx = 99 };
	c->entries[3] = (struct kvm_cpuid_entry2){ .function = 0x40000000, .eax = 0x40000001 };
	c->nent = 4;
	return 0;
}

static int set_cpuid(unsigned id, const struct kvm_cpuid2 *c)
{
	bool hypervisor = false;

	for (unsigned i = 0; i < c->nent; i++) {
		const struct kvm_cpuid_entry2 *e = &c->entries[i];

		if (e->function == 1)
			fake.apic_id[id] = e->ebx >> 24;
		if (e->function == 0xb && e->index == 1)
			fake.ncores[id] = e->ebx;
		hypervisor |= e->function == 0x40000000;
	}
	return hypervisor ? 0 : host_error(EINVAL);
}

/* Finish the last exit, as KVM does on entry: an IN's value arrives. */
static void complete(struct kvm_run *run)
{
	const struct fake_step *s;
	u64 v = 0;

	if (!fake.at)
		return;
	s = &fake.script[fake.at - 1];
	if (s->op == FAKE_IN)
		memcpy(&v, (u8 *)run + DATA_AT, s->len);
	else if (s->op == FAKE_MMIO_IN)
		memcpy(&v, run->mmio.data, s->len);
	else
		return;
	fake.mismatches += v != s->value;
}

static int spin(struct kvm_run *run)
{
	while (!__atomic_load_n(&run->immediate_exit, __ATOMIC_SEQ_CST))
		usleep(500);
	return host_error(EINTR);
}

static int step(struct kvm_run *run)
{
	const struct fake_step *s;

	if (__atomic_load_n(&run->immediate_exit, __ATOMIC_SEQ_CST))
		return host_error(EINTR);
	complete(run);
	if (fake.at == fake.nsteps)
		return spin(run);
	s = &fake.script[fake.at++];
	switch (s->op) {
	case FAKE_OUT:
	case FAKE_IN:
	case FAKE_OUTS:
		run->exit_reason = KVM_EXIT_IO;
		run->io.direction = s->op == FAKE_IN ? KVM_EXIT_IO_IN : KVM_EXIT_IO_OUT;
		run->io.port = s->port;
		run->io.size = s->op == FAKE_OUTS ? 1 : (u8)s->len;
		run->io.count = s->op == FAKE_OUTS ? (u32)strlen(s->text) : 1;
		run->io.data_offset = DATA_AT;
		if (s->op == FAKE_OUT)
			memcpy((u8 *)run + DATA_AT, &s->value, s->len);
		else if (s->op == FAKE_OUTS)
			memcpy((u8 *)run + DATA_AT, s->text, strlen(s->text));
		return 0;
	case FAKE_MMIO_IN:
		run->exit_reason = KVM_EXIT_MMIO;
		run->mmio.phys_addr = s->addr;
		run->mmio.len = s->len;
		run->mmio.is_write = 0;
		return 0;
	case FAKE_SPIN:
		return spin(run);
	case FAKE_EXIT:
		run->exit_reason = (u32)s->value;
		return 0;
	case FAKE_EVENT:
		run->exit_reason = KVM_EXIT_SYSTEM_EVENT;
		run->system_event.type = (u32)s->value;
		return 0;
	case FAKE_ERROR:
		return host_error((int)s->value);
	}
	return host_error(EINVAL);
}

static int vcpu_ioctl(unsigned id, unsigned long request, void *arg)
{
	switch (request) {
	case KVM_RUN:
		return id ? spin(vcpu_run[id]) : step(vcpu_run[0]);
	case KVM_SET_CPUID2:
		return set_cpuid(id, arg);
	case KVM_GET_REGS:
		*(struct kvm_regs *)arg = fake.regs;
		return 0;
	case KVM_SET_REGS:
		fake.regs = *(struct kvm_regs *)arg;
		return 0;
	case KVM_GET_SREGS:
		*(struct kvm_sregs *)arg = fake.sregs;
		return 0;
	case KVM_SET_SREGS:
		fake.sregs = *(struct kvm_sregs *)arg;
		return 0;
	case KVM_TRANSLATE: {
		struct kvm_translation *t = arg;

		t->physical_address = t->linear_address;
		t->valid = 1;
		return 0;
	}
	case KVM_SET_MSRS:
		return (int)((struct kvm_msrs *)arg)->nmsrs;
	case KVM_GET_LAPIC:
		memset(arg, 0, sizeof(struct kvm_lapic_state));
		return 0;
	case KVM_SET_LAPIC:
		return 0;
	default:
		return host_error(ENOTTY);
	}
}

static int vm_ioctl(unsigned long request, void *arg)
{
	switch (request) {
	case KVM_SET_USER_MEMORY_REGION:
		assert_true(fake.nslots < ARRAY_SIZE(fake.slot));
		fake.slot[fake.nslots++] = *(struct kvm_userspace_memory_region *)arg;
		return 0;
	case KVM_CREATE_VCPU:
		assert_int_equal((uintptr_t)arg, fake.nvcpus);
		vcpu_fd[fake.nvcpus] = new_fd();
		return vcpu_fd[fake.nvcpus++];
	case KVM_CREATE_IRQCHIP:
		fake.irqchips++;
		return 0;
	case KVM_CREATE_PIT2:
		fake.pits++;
		return 0;
	case KVM_SET_TSS_ADDR:
	case KVM_SET_IDENTITY_MAP_ADDR:
	case KVM_IRQ_LINE:
	case KVM_SIGNAL_MSI:
		return 0;
	default:
		return host_error(ENOTTY);
	}
}

static int fake_ioctl(int fd, unsigned long request, void *arg)
{
	for (unsigned i = 0; i < fake.nvcpus; i++)
		if (fd == vcpu_fd[i])
			return vcpu_ioctl(i, request, arg);
	if (fd == vm_fd && fd != system_fd)
		return vm_ioctl(request, arg);
	assert_int_equal(fd, system_fd);
	switch (request) {
	case KVM_GET_API_VERSION:
		return KVM_API_VERSION;
	case KVM_CHECK_EXTENSION:
		if ((int)(uintptr_t)arg == fake.refuse)
			return 0;
		return (uintptr_t)arg == KVM_CAP_MAX_VCPUS ? FAKE_MAX_VCPUS : 1;
	case KVM_CREATE_VM:
		vm_fd = new_fd();
		return vm_fd;
	case KVM_GET_VCPU_MMAP_SIZE:
		return RUN_SIZE;
	case KVM_GET_SUPPORTED_CPUID:
		return supported_cpuid(arg);
	default:
		return host_error(ENOTTY);
	}
}

const struct accel fake_accel = {
	.name = "fake",
	.open = fake_open,
	.ioctl = fake_ioctl,
	.mmap = fake_mmap,
	.close = fake_close,
};
