// SPDX-License-Identifier: MIT
/*
 * Building, running and taking down the machine.
 *
 * Threads: the caller's thread runs the loop (terminal, timers); one thread a vCPU, one a disk, one
 * writes the output.  board.stop() may come from any of them: it records the first reason and stops
 * the loop, and everything else happens on the caller's thread, in machine_run().
 */
#include "machine.h"

#include <errno.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "acpi.h"
#include "base/bits.h"
#include "guest_cpuid.h"
#include "i8042.h"
#include "load.h"
#include "memory.h"
#include "msg.h"
#include "pci.h"
#include "pm.h"
#include "rtc.h"
#include "serial.h"
#include "vcpu.h"
#include "virtio_blk.h"
#include "virtio_console.h"
#include "virtio_pci.h"
#include "virtio_rng.h"

#define MAX_VIRTIO (MAX_DISKS + 2)

struct machine {
	struct board board;
	const struct accel *accel;
	int kvm, vm;
	struct memory mem;
	struct bus io, mmio;
	struct loop loop;

	pthread_mutex_t stop_lock;
	enum stop_reason reason;
	int code;

	struct terminal *term;
	struct serial *serial;
	struct rtc *rtc;
	struct i8042 *i8042;
	struct pm *pm;
	struct pci_host *pci;
	struct virtio_blk *disk[MAX_DISKS];
	unsigned ndisks;
	struct virtio_rng *rng;
	struct virtio_console *console;
	struct virtio_pci *transport[MAX_VIRTIO];
	unsigned ntransports;

	struct vcpu *vcpu[MAX_CPUS];
	unsigned nvcpus;
};

/* Capabilities without which nothing works. */
static const struct {
	int cap;
	const char *name;
} required[] = {
	{ KVM_CAP_IRQCHIP, "KVM_CAP_IRQCHIP" },
	{ KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY" },
	{ KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID" },
	{ KVM_CAP_PIT2, "KVM_CAP_PIT2" },
	{ KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI" },
	{ KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT" },
};

static struct machine *of(struct board *b)
{
	return um_container_of(b, struct machine, board);
}

static void set_line(struct board *b, unsigned gsi, bool level)
{
	struct kvm_irq_level irq = { .irq = gsi, .level = level };

	if (of(b)->accel->ioctl(of(b)->vm, KVM_IRQ_LINE, &irq) < 0)
		msg("KVM_IRQ_LINE %u: %s", gsi, strerror(errno));
}

/* Messages to nowhere are the guest's business: KVM_SIGNAL_MSI's result is not ours to judge. */
static void send_msi(struct board *b, u64 addr, u32 data)
{
	struct kvm_msi msi = {
		.address_lo = (u32)addr,
		.address_hi = (u32)(addr >> 32),
		.data = data,
	};

	of(b)->accel->ioctl(of(b)->vm, KVM_SIGNAL_MSI, &msi);
}

static void stop(struct board *b, enum stop_reason reason, int code)
{
	struct machine *m = of(b);

	pthread_mutex_lock(&m->stop_lock);
	if (m->reason == STOP_NONE) {
		m->reason = reason;
		m->code = code;
	}
	pthread_mutex_unlock(&m->stop_lock);
	loop_stop(&m->loop);
}

static int vm_ioctl(struct machine *m, unsigned long request, void *arg, const char *name)
{
	if (m->accel->ioctl(m->vm, request, arg) >= 0)
		return 0;
	return msg_err(errno, "%s: %s", name, strerror(errno));
}

static int cap(struct machine *m, int n)
{
	return m->accel->ioctl(m->kvm, KVM_CHECK_EXTENSION, (void *)(uintptr_t)n);
}

/* Open KVM, and create a VM with interrupt controllers and timer. */
static int create_vm(struct machine *m, unsigned cpus)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	u64 identity = MEM_KVM_PAGES;
	int version, max, err;

	m->kvm = m->accel->open();
	if (m->kvm < 0)
		return msg_err(errno, "cannot open KVM (--accel=%s): %s", m->accel->name,
			       strerror(errno));
	version = m->accel->ioctl(m->kvm, KVM_GET_API_VERSION, NULL);
	if (version != KVM_API_VERSION)
		return msg_err(ENOTSUP, "KVM speaks version %d of its API, not %d", version,
			       KVM_API_VERSION);
	for (unsigned i = 0; i < ARRAY_SIZE(required); i++)
		if (cap(m, required[i].cap) <= 0)
			return msg_err(ENOTSUP, "KVM lacks %s", required[i].name);
	max = cap(m, KVM_CAP_MAX_VCPUS);
	if (max <= 0)
		max = cap(m, KVM_CAP_NR_VCPUS);
	if (max > 0 && cpus > (unsigned)max)
		return msg_err(EINVAL, "--cpus: KVM has at most %d", max);
	do
		m->vm = m->accel->ioctl(m->kvm, KVM_CREATE_VM, NULL);
	while (m->vm < 0 && errno == EINTR);
	if (m->vm < 0)
		return msg_err(errno, "KVM_CREATE_VM: %s", strerror(errno));

	err = 0;
	if (cap(m, KVM_CAP_SET_IDENTITY_MAP_ADDR) > 0)
		err = vm_ioctl(m, KVM_SET_IDENTITY_MAP_ADDR, &identity,
			       "KVM_SET_IDENTITY_MAP_ADDR");
	if (!err && cap(m, KVM_CAP_SET_TSS_ADDR) > 0)
		err = vm_ioctl(m, KVM_SET_TSS_ADDR,
			       (void *)(uintptr_t)(MEM_KVM_PAGES + UM_PAGE_SIZE),
			       "KVM_SET_TSS_ADDR");
	if (!err)
		err = vm_ioctl(m, KVM_CREATE_IRQCHIP, NULL, "KVM_CREATE_IRQCHIP");
	if (!err)
		err = vm_ioctl(m, KVM_CREATE_PIT2, &pit, "KVM_CREATE_PIT2");
	return err;
}

/* Slots of address space @as: 0, or 1, which is that of system-management mode. */
static int create_slots(struct machine *m, unsigned as)
{
	int err = 0;

	for (unsigned i = 0; i < m->mem.nregions && !err; i++) {
		struct kvm_userspace_memory_region r = {
			.slot = as << 16 | i,
			.guest_phys_addr = m->mem.region[i].gpa,
			.memory_size = m->mem.region[i].size,
			.userspace_addr = (u64)(uintptr_t)m->mem.region[i].hva,
		};

		err = vm_ioctl(m, KVM_SET_USER_MEMORY_REGION, &r, "KVM_SET_USER_MEMORY_REGION");
	}
	return err;
}

/* With --smm the same memory in both: as on a PC whose firmware leaves its SMRAM open. */
static int create_memory(struct machine *m, const struct run_options *o)
{
	int err = mem_init(&m->mem, o->mem);

	if (!err)
		err = create_slots(m, 0);
	if (!err && o->smm && cap(m, KVM_CAP_MULTI_ADDRESS_SPACE) < 2)
		return msg_err(ENOTSUP, "--smm: KVM has no memory for system-management mode");
	if (!err && o->smm)
		err = create_slots(m, 1);
	return err;
}

/* The devices of the board; virtio devices come later. */
static int create_board_devices(struct machine *m, const struct run_options *o)
{
	struct board *b = &m->board;
	int err;

	m->serial = serial_new(b, SERIAL_COM1_IRQ, m->term, !o->virtio_console);
	m->rtc = rtc_new(b, &m->loop, &m->mem);
	m->i8042 = i8042_new(b);
	m->pm = pm_new(b);
	m->pci = pci_host_new(b);
	if (!m->serial || !m->rtc || !m->i8042 || !m->pm || !m->pci)
		return msg_err(ENOMEM, "cannot create the devices: %s", strerror(errno));
	err = bus_add(&m->io, SERIAL_COM1_PORT, SERIAL_NPORTS, 1, serial_io, m->serial);
	if (!err)
		err = bus_add(&m->io, RTC_PORT, RTC_NPORTS, 1, rtc_io, m->rtc);
	if (!err)
		err = bus_add(&m->io, I8042_DATA_PORT, 1, 1, i8042_data_io, m->i8042);
	if (!err)
		err = bus_add(&m->io, I8042_STATUS_PORT, 1, 1, i8042_status_io, m->i8042);
	if (!err)
		err = bus_add(&m->io, PM_PORT, PM_NPORTS, 4, pm_io, m->pm);
	if (!err)
		err = bus_add(&m->io, PCI_CONF_PORT, PCI_CONF_NPORTS, 4, pci_conf_io, m->pci);
	if (!err)
		err = bus_add(&m->mmio, PCI_MMIO_BASE, PCI_MMIO_END - PCI_MMIO_BASE, 8, pci_mmio,
			      m->pci);
	if (!err && o->debug_exit)
		err = bus_add(&m->io, DEBUG_EXIT_PORT, 4, 4, debug_exit_io, b);
	if (err)
		return msg_err(-err, "cannot lay out the devices: %s", strerror(-err));
	term_on_power_button(m->term, pm_power_button, m->pm);
	if (!o->virtio_console)
		term_on_input(m->term, serial_input, m->serial);
	return 0;
}

static int plug(struct machine *m, struct virtio *v)
{
	struct virtio_pci *t = virtio_pci_new(v, m->pci, &m->board);

	if (!t)
		return -ENOSPC;
	m->transport[m->ntransports++] = t;
	return 0;
}

static int create_virtio_devices(struct machine *m, const struct run_options *o)
{
	int err = 0;

	for (unsigned i = 0; i < o->ndisks && !err; i++) {
		struct virtio_blk *d =
			virtio_blk_new(o->disk[i].path, o->disk[i].read_only, i, &m->mem);

		if (!d)
			return -ENODEV;
		m->disk[m->ndisks++] = d;
		err = plug(m, virtio_blk_device(d));
	}
	if (err)
		return err;
	m->rng = virtio_rng_new(&m->mem);
	if (!m->rng)
		return -ENOMEM;
	err = plug(m, virtio_rng_device(m->rng));
	if (err || !o->virtio_console)
		return err;
	m->console = virtio_console_new(m->term, &m->mem);
	if (!m->console)
		return -ENOMEM;
	term_on_input(m->term, virtio_console_input, m->console);
	return plug(m, virtio_console_device(m->console));
}

static int create_vcpus(struct machine *m, unsigned n, const struct boot *boot)
{
	struct vcpu_env env = {
		.accel = m->accel,
		.kvm = m->kvm,
		.vm = m->vm,
		.board = &m->board,
		.io = &m->io,
		.mmio = &m->mmio,
		.mem = &m->mem,
	};
	struct kvm_cpuid2 *supported = cpuid_supported(m->accel, m->kvm);
	bool tsc_deadline = cap(m, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	int err = supported ? 0 : -ENOMEM;

	/* Processors other than 0 wait for INIT and SIPI: with a KVM irqchip that is their reset state. */
	for (unsigned i = 0; i < n && !err; i++) {
		struct kvm_cpuid2 *cpuid = cpuid_for_vcpu(supported, i, n, tsc_deadline);
		struct vcpu *v = cpuid ? vcpu_new(&env, i, cpuid) : NULL;

		free(cpuid);
		if (!v)
			err = -ENOMEM;
		else
			m->vcpu[m->nvcpus++] = v;
	}
	free(supported);
	return err ? err : vcpu_set_boot(m->vcpu[0], boot);
}

static int build(struct machine *m, const struct run_options *o, int in_fd, int out_fd)
{
	struct load_request request = {
		.kernel = o->kernel,
		.initrd = o->initrd,
		.cmdline = o->append,
		.rsdp = ACPI_RSDP_GPA,
	};
	struct boot boot;
	int err = create_memory(m, o);

	if (!err)
		err = load_kernel(&request, &m->mem, &boot);
	if (!err)
		err = acpi_write(&m->mem, o->cpus);
	if (err)
		return err;
	if (o->verbose)
		msg("kernel: %s, entry 0x%llx", boot.format, (unsigned long long)boot.rip);
	m->term = term_new(in_fd, out_fd, &m->loop, &m->board);
	if (!m->term)
		return -ENOMEM;
	err = create_board_devices(m, o);
	if (!err)
		err = create_virtio_devices(m, o);
	if (!err)
		err = create_vcpus(m, o->cpus, &boot);
	return err;
}

int machine_new(struct machine **out, const struct accel *accel, const struct run_options *o,
		int in_fd, int out_fd)
{
	struct machine *m = calloc(1, sizeof(*m));
	int err;

	if (!m)
		return -ENOMEM;
	m->board = (struct board){ set_line, send_msi, stop };
	m->accel = accel;
	m->kvm = m->vm = -1;
	pthread_mutex_init(&m->stop_lock, NULL);
	err = loop_init(&m->loop);
	if (err) {
		free(m);
		return msg_err(-err, "eventfd: %s", strerror(-err));
	}
	err = create_vm(m, o->cpus);
	if (!err)
		err = build(m, o, in_fd, out_fd);
	if (err) {
		machine_free(m);
		return err;
	}
	*out = m;
	return 0;
}

enum stop_reason machine_run(struct machine *m, int *code)
{
	enum stop_reason reason;
	int err = 0;

	vcpu_init_signal();
	term_start(m->term);
	for (unsigned i = 0; i < m->nvcpus && !err; i++)
		err = vcpu_start(m->vcpu[i]);
	if (err)
		stop(&m->board, STOP_HOST, 0);
	loop_run(&m->loop);
	/* A vCPU may be waiting for the terminal to take its output. */
	term_unblock(m->term);
	for (unsigned i = 0; i < m->nvcpus; i++)
		vcpu_stop(m->vcpu[i]);
	for (unsigned i = 0; i < m->nvcpus; i++)
		vcpu_join(m->vcpu[i]);
	term_restore(m->term);
	pthread_mutex_lock(&m->stop_lock);
	reason = m->reason;
	*code = m->code;
	pthread_mutex_unlock(&m->stop_lock);
	return reason;
}

bool machine_free(struct machine *m)
{
	bool complete = true;

	for (unsigned i = 0; i < m->nvcpus; i++)
		vcpu_free(m->vcpu[i]);
	/* Disks first: their threads use the memory and the interrupts. */
	for (unsigned i = 0; i < m->ndisks; i++)
		virtio_blk_free(m->disk[i]);
	if (m->term)
		complete = term_close(m->term);
	virtio_rng_free(m->rng);
	virtio_console_free(m->console);
	for (unsigned i = 0; i < m->ntransports; i++)
		virtio_pci_free(m->transport[i]);
	serial_free(m->serial);
	rtc_free(m->rtc);
	i8042_free(m->i8042);
	pm_free(m->pm);
	pci_host_free(m->pci);
	if (m->vm >= 0)
		m->accel->close(m->vm);
	if (m->kvm >= 0)
		m->accel->close(m->kvm);
	mem_fini(&m->mem);
	loop_fini(&m->loop);
	pthread_mutex_destroy(&m->stop_lock);
	free(m);
	return complete;
}

struct loop *machine_loop(struct machine *m)
{
	return &m->loop;
}

struct board *machine_board(struct machine *m)
{
	return &m->board;
}

struct terminal *machine_terminal(struct machine *m)
{
	return m->term;
}

void machine_resized(struct machine *m)
{
	if (m->console)
		virtio_console_resized(m->console);
}
