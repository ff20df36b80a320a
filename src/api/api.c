// SPDX-License-Identifier: MIT
/*
 * The functions of umbra.h: descriptors in, ioctls to the layer below, errno out; and the environment.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/api.h"
#include "api/handle.h"
#include "api/thread.h"
#include "base/log.h"
#include "base/memfd.h"
#include "base/uaccess.h"
#include "cpu/hostid.h"
#include "umbra.h"

/* ---- the environment ---- */

static int bad_value(const char *name, const char *value)
{
	um_log("%s=%s is not understood", name, value);
	return -EINVAL;
}

static int read_jit_options(struct um_jit_options *o)
{
	um_jit_options_init(o);
	for (unsigned n = 0; n < UM_JIT_OPT_MAX; n++) {
		const char *name = um_jit_option_env((enum um_jit_option)n), *value = getenv(name);

		if (value && um_jit_option_set(o, (enum um_jit_option)n, value))
			return bad_value(name, value);
	}
	return 0;
}

static int read_environment(struct um_vm_config *cfg)
{
	const char *engine = getenv("UMBRA_ENGINE"), *trace = getenv("UMBRA_TRACE");
	const char *mmu = getenv("UMBRA_MMU"), *audit = getenv("UMBRA_AUDIT");
	const char *mask = getenv("UMBRA_HOST_MASK"), *bad;

	memset(cfg, 0, sizeof(*cfg));
	cfg->trace.fd = STDERR_FILENO;
	cfg->engine = UM_ENGINE_JIT;
	if (engine && !strcmp(engine, "interp"))
		cfg->engine = UM_ENGINE_INTERP;
	else if (engine && !strcmp(engine, "lockstep"))
		cfg->engine = UM_ENGINE_LOCKSTEP;
	else if (engine && strcmp(engine, "jit") && strcmp(engine, "auto"))
		return bad_value("UMBRA_ENGINE", engine);
	if (trace && um_trace_parse(trace, &cfg->trace.mask, &bad))
		return bad_value("UMBRA_TRACE", bad);
	if (mmu && strcmp(mmu, "shadow") && strcmp(mmu, "tdp"))
		return bad_value("UMBRA_MMU", mmu);
	cfg->tdp = mmu && !strcmp(mmu, "tdp");
	if (audit && strcmp(audit, "0") && strcmp(audit, "1"))
		return bad_value("UMBRA_AUDIT", audit);
	if (mask && um_host_mask_check(mask, &bad))
		return bad_value("UMBRA_HOST_MASK", bad);
	cfg->audit = audit && !strcmp(audit, "1");
	return read_jit_options(&cfg->jit);
}

/* ---- making descriptors ---- */

/* Names of the memfds: by them a descriptor is known in another process. */
#define SYSTEM_NAME "umbra"
#define VM_NAME	    "umbra-vm"
#define VCPU_NAME   "umbra-vcpu:"

static int install_memfd(const char *name, const struct um_handle *h)
{
	int fd = um_memfd_create(name, 0);

	return fd < 0 ? fd : um_handle_install(fd, h);
}

static void release_vm(void *obj)
{
	um_vm_put(obj);
}

static void release_vcpu(void *obj)
{
	um_vm_put(((struct um_vcpu *)obj)->vm);
}

int um_system_fd(struct um_system *s)
{
	struct um_handle h = { .kind = UM_HANDLE_SYSTEM, .obj = s, .release = free };

	return install_memfd(SYSTEM_NAME, &h);
}

int um_vm_fd(struct um_vm *vm)
{
	struct um_handle h = { .kind = UM_HANDLE_VM, .obj = vm, .release = release_vm };

	return install_memfd(VM_NAME, &h);
}

int um_vcpu_fd(struct um_vm *vm, u32 id)
{
	struct um_handle h = { .kind = UM_HANDLE_VCPU, .release = release_vcpu };
	size_t size = um_vcpu_run_size(vm);
	struct kvm_run *run;
	struct um_vcpu *v;
	char name[32];
	int fd, err;

	snprintf(name, sizeof(name), VCPU_NAME "%u", id);
	fd = um_memfd_create(name, size);
	if (fd < 0)
		return fd;
	run = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (run == MAP_FAILED) {
		err = -errno;
		close(fd);
		return err;
	}
	err = um_vcpu_create(vm, id, run, size, &v);
	if (err) {
		munmap(run, size);
		close(fd);
		return err;
	}
	h.obj = v;
	fd = um_handle_install(fd, &h);
	if (fd < 0) /* it can't be taken back: it stays in the VM, without a descriptor */
		um_vm_put(vm);
	return fd;
}

/* ---- umbra.h ---- */

/* -errno to the C library's convention. */
static int result(long r)
{
	if (r >= 0)
		return (int)r;
	errno = (int)-r;
	return -1;
}

static int make_system(struct um_system **out)
{
	struct um_system *s = calloc(1, sizeof(*s));
	int err;

	if (!s)
		return -ENOMEM;
	err = um_uaccess_init();
	if (!err)
		err = read_environment(&s->cfg);
	if (err)
		free(s);
	else
		*out = s;
	return err;
}

static int open_system(void)
{
	struct um_system *s;
	int r = make_system(&s);

	if (r)
		return r;
	r = um_system_fd(s);
	if (r < 0)
		free(s);
	return r;
}

int umbra_open(void)
{
	int r;

	um_thread_enter();
	r = open_system();
	um_thread_leave();
	return result(r);
}

static long do_ioctl(const struct um_handle *h, int fd, u32 request, unsigned long arg)
{
	const struct um_trace *trace;
	long r;

	if (h->dead) /* KVM's answer to another process than the one that made the VM */
		return -EIO;
	switch (h->kind) {
	case UM_HANDLE_SYSTEM:
		trace = &((struct um_system *)h->obj)->cfg.trace;
		r = um_system_ioctl(h->obj, request, arg);
		break;
	case UM_HANDLE_VM:
		trace = &((struct um_vm *)h->obj)->cfg.trace;
		r = um_vm_ioctl(h->obj, request, arg);
		break;
	default:
		trace = &((struct um_vcpu *)h->obj)->vm->cfg.trace;
		r = um_vcpu_ioctl(h->obj, request, arg);
		break;
	}
	um_trace(trace, ioctl, "fd %d: request %#x arg %#lx = %ld", fd, request, arg, r);
	return r;
}

int umbra_ioctl(int fd, unsigned long request, void *arg)
{
	struct um_handle h;
	long r = -EBADF;

	um_thread_enter();
	if (um_handle_get(fd, &h)) {
		r = do_ioctl(&h, fd, (u32)request, (unsigned long)arg);
		um_handle_put(&h);
	}
	um_thread_leave();
	return result(r);
}

/* KVM's rule: a dirty ring can't be mapped privately, or to be executed. */
static bool mappable(size_t length, int prot, int flags, off_t offset)
{
	const size_t ring = KVM_DIRTY_LOG_PAGE_OFFSET * UM_PAGE_SIZE;

	if ((size_t)offset < ring && length <= ring - (size_t)offset)
		return true;
	return !(prot & PROT_EXEC) && (flags & MAP_TYPE) != MAP_PRIVATE;
}

/*
 * A vCPU's memfd, but for the ring of coalesced writes, which all vCPUs of a VM have in common: it lies over
 * its page.
 */
static void *map_vcpu(const struct um_vcpu *v, void *addr, size_t length, int prot, int flags,
		      int fd, off_t offset)
{
	const off_t ring = UM_RING_PAGE * (off_t)UM_PAGE_SIZE;
	void *p, *at;

	if (v->ring && !mappable(length, prot, flags, offset)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	p = mmap(addr, length, prot, flags, fd, offset);
	if (p == MAP_FAILED || offset > ring || length <= (size_t)(ring - offset))
		return p;
	at = (char *)p + (ring - offset);
	flags = (flags & ~MAP_FIXED_NOREPLACE) | MAP_FIXED;
	if (mmap(at, UM_PAGE_SIZE, prot, flags, v->vm->ring_fd, 0) == MAP_FAILED) {
		int err = errno;

		munmap(p, length);
		errno = err;
		return MAP_FAILED;
	}
	return p;
}

void *umbra_mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset)
{
	struct um_handle h;
	void *p = MAP_FAILED;

	um_thread_enter();
	if (!um_handle_get(fd, &h)) {
		errno = EBADF;
	} else {
		if (h.kind == UM_HANDLE_VCPU && h.obj)
			p = map_vcpu(h.obj, addr, length, prot, flags, fd, offset);
		else
			errno = ENODEV;
		um_handle_put(&h);
	}
	um_thread_leave();
	return p;
}

int umbra_close(int fd)
{
	int r;

	um_thread_enter();
	r = um_handle_close(fd);
	um_thread_leave();
	return result(r);
}

int umbra_forget(int fd)
{
	int r;

	um_thread_enter();
	r = um_handle_forget(fd);
	um_thread_leave();
	return result(r);
}

int umbra_dup(int fd, int newfd)
{
	int r;

	um_thread_enter();
	r = um_handle_dup(fd, newfd);
	um_thread_leave();
	return result(r);
}

/* The kind of a memfd that this library has made somewhere, by its name; or -1. */
static int kind_by_name(int fd)
{
	char path[32], name[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, name, sizeof(name) - 1);
	if (n < 0)
		return -1;
	name[n] = 0;
	if (!strcmp(name, "/memfd:" SYSTEM_NAME " (deleted)"))
		return UM_HANDLE_SYSTEM;
	if (!strcmp(name, "/memfd:" VM_NAME " (deleted)"))
		return UM_HANDLE_VM;
	if (!strncmp(name, "/memfd:" VCPU_NAME, strlen("/memfd:" VCPU_NAME)))
		return UM_HANDLE_VCPU;
	return -1;
}

static void release_nothing(void *obj) {}

/* As open_system(), with a descriptor that is there; or one of somebody else's VM.  The kind or -errno. */
static int adopt(int fd)
{
	struct um_handle h = { .release = release_nothing };
	int kind = um_handle_kind(fd), err;

	if (kind >= 0)
		return kind;
	kind = kind_by_name(fd);
	if (kind < 0)
		return -EBADF;
	h.kind = (enum um_handle_kind)kind;
	h.foreign = kind != UM_HANDLE_SYSTEM;
	if (!h.foreign) {
		err = make_system((struct um_system **)&h.obj);
		if (err)
			return err;
		h.release = free;
	}
	err = um_handle_adopt(fd, &h);
	if (err) {
		free(h.obj);
		return err;
	}
	return kind;
}

static int public_kind(int kind)
{
	switch (kind) {
	case UM_HANDLE_SYSTEM:
		return UMBRA_KIND_SYSTEM;
	case UM_HANDLE_VM:
		return UMBRA_KIND_VM;
	case UM_HANDLE_VCPU:
		return UMBRA_KIND_VCPU;
	}
	return UMBRA_KIND_NONE;
}

int umbra_kind(int fd)
{
	return public_kind(um_handle_kind(fd));
}

int umbra_adopt(int fd)
{
	int r;

	um_thread_enter();
	r = adopt(fd);
	um_thread_leave();
	return r == -EBADF ? UMBRA_KIND_NONE : r < 0 ? result(r) : public_kind(r);
}

int umbra_next(int fd)
{
	return um_handle_next(fd);
}

int umbra_interrupt(void)
{
	return um_thread_interrupt();
}

int umbra_interrupt_vcpu(int fd)
{
	struct um_handle h;
	int r = -EBADF;

	um_thread_enter();
	if (um_handle_get(fd, &h)) {
		r = h.kind == UM_HANDLE_VCPU && !h.dead ? 0 : -EINVAL;
		if (!r)
			um_vcpu_interrupt_run(h.obj);
		um_handle_put(&h);
	}
	um_thread_leave();
	return result(r);
}

void umbra_enter(void)
{
	um_thread_enter();
}

void umbra_leave(void)
{
	um_thread_leave();
}

int umbra_sigaction(int sig, const struct sigaction *act, struct sigaction *oldact)
{
	return result(um_uaccess_sigaction(sig, act, oldact));
}

const char *umbra_version(void)
{
	return UMBRA_VERSION;
}
