// SPDX-License-Identifier: MIT
/*
 * Hypercalls of Hyper-V's interface (TLFS, "Hypercall Interface"): once the guest has set its OS id, VMCALL and VMMCALL
 * are these.
 *
 * A 64-bit caller has the input value in RCX, the addresses of input and output in RDX and R8, the result in RAX; a
 * 32-bit one has them in EDX:EAX, EBX:ECX, EDI:ESI, EDX:EAX.  A "fast" call has its input in registers: the two
 * of the addresses, then XMM0 to XMM5.  So an input is a block of bytes in either case, and each call reads it
 * by offsets (input()).
 *
 * Flushes of lists of addresses flush everything, as KVM's do.  A flush is complete when the call returns: vCPUs that
 * execute guest code then have done it, or left; others do it before they execute any (UM_REQ_TLB_FLUSH).
 */
#include <errno.h>
#include <sched.h>
#include <string.h>

#include "vcpu/hyperv.h"

#define FAST_MAX   112 /* bytes: two registers of 8, six of 16 */
#define FAST_SHORT 16  /* without XMM registers */
#define MAX_BANKS  64

struct call {
	struct um_vcpu *v;
	u16 code;
	bool fast;
	unsigned variable, reps, rep_start;
	u64 value, in, out;
};

enum outcome { DONE, TO_VMM };

/* ---- registers ---- */

static u64 pair(u64 hi, u64 lo)
{
	return hi << 32 | (u32)lo;
}

static struct call get_call(struct um_vcpu *v)
{
	const u64 *r = v->x.cpu.gpr;
	bool wide = um_cpu_64bit(&v->x.cpu);
	struct call c = {
		.v = v,
		.value = wide ? r[UM_RCX] : pair(r[UM_RDX], r[UM_RAX]),
		.in = wide ? r[UM_RDX] : pair(r[UM_RBX], r[UM_RCX]),
		.out = wide ? r[UM_R8] : pair(r[UM_RDI], r[UM_RSI]),
	};

	c.code = HV_CALL_CODE(c.value);
	c.fast = c.value & HV_CALL_FAST;
	c.variable = HV_CALL_VARIABLE(c.value);
	c.reps = HV_CALL_REPS(c.value);
	c.rep_start = HV_CALL_REP_START(c.value);
	return c;
}

static void set_result(struct um_vcpu *v, u64 result)
{
	u64 *r = v->x.cpu.gpr;

	if (um_cpu_64bit(&v->x.cpu)) {
		r[UM_RAX] = result;
	} else {
		r[UM_RAX] = (u32)result;
		r[UM_RDX] = result >> 32;
	}
}

/* Bytes [offset, offset + len) of the input. */
static enum hv_status input(const struct call *c, unsigned offset, void *buf, size_t len)
{
	u8 regs[FAST_MAX];

	if (!c->fast) {
		if (c->in & 7)
			return HV_INVALID_ALIGNMENT;
		return um_mem_read(c->v->vm->mem, 0, c->in + offset, buf, len)
			       ? HV_INVALID_HYPERCALL_INPUT
			       : HV_SUCCESS;
	}
	if (offset + len > sizeof(regs))
		return HV_INVALID_HYPERCALL_INPUT;
	memcpy(regs, &c->in, 8);
	memcpy(regs + 8, &c->out, 8);
	for (unsigned i = 0; i < 6; i++)
		memcpy(regs + FAST_SHORT + 16 * i, c->v->x.cpu.fpu.zmm[i], 16);
	memcpy(buf, regs + offset, len);
	return HV_SUCCESS;
}

/* ---- sets of virtual processors ---- */

struct vp_set {
	bool all;
	u64 bank[MAX_BANKS];
};

static bool in_set(const struct vp_set *set, const struct um_vcpu *v)
{
	u32 vp = atomic_load(&v->hv->vp_index);

	return set->all || (vp / 64 < MAX_BANKS && set->bank[vp / 64] >> (vp % 64) & 1);
}

/* HV_VP_SET at @offset: a format, a mask of banks, and the banks that the mask names.  *@empty: of banks. */
static enum hv_status read_set(const struct call *c, unsigned offset, struct vp_set *set,
			       bool *empty)
{
	u64 head[2], banks[MAX_BANKS];
	enum hv_status s = input(c, offset, head, sizeof(head));
	unsigned n = 0;

	memset(set, 0, sizeof(*set));
	*empty = false;
	if (s)
		return s;
	if (head[0] != HV_SET_SPARSE_4K) {
		set->all = true;
		return HV_SUCCESS;
	}
	*empty = !head[1];
	if (c->variable != (unsigned)__builtin_popcountll(head[1]))
		return HV_INVALID_HYPERCALL_INPUT;
	s = input(c, offset + sizeof(head), banks, c->variable * sizeof(banks[0]));
	if (s)
		return s;
	for (u64 map = head[1]; map; map &= map - 1)
		set->bank[__builtin_ctzll(map)] = banks[n++];
	return HV_SUCCESS;
}

/* ---- flushes ---- */

static bool in_guest(const struct um_vcpu *v)
{
	return atomic_load(&v->in_guest);
}

static void wait_for_flush(struct um_vcpu *v)
{
	for (unsigned spins = 1; in_guest(v) && atomic_load(&v->requests) & UM_REQ_TLB_FLUSH;
	     spins++) {
		sched_yield();
		/* It may have looked just before the first kick arrived. */
		if (spins % 1024 == 0)
			um_vcpu_kick(v);
	}
}

static void flush(struct um_vcpu *self, const struct vp_set *set)
{
	struct um_vcpu *v;
	unsigned i;

	um_for_each_vcpu(self->vm, i, v)
	{
		if (v == self || !in_set(set, v))
			continue;
		/* One that sleeps need not wake up for it. */
		atomic_fetch_or(&v->requests, UM_REQ_TLB_FLUSH);
		if (in_guest(v))
			um_vcpu_kick(v);
	}
	if (in_set(set, self))
		um_mmu_invpcid(self->mmu, 2, 0, 0); /* everything, global pages too */
	um_for_each_vcpu(self->vm, i, v)
	{
		if (v != self && in_set(set, v))
			wait_for_flush(v);
	}
}

/* Address space, flags, processors; then addresses, which need not be looked at. */
static enum hv_status flush_call(const struct call *c, bool ex)
{
	struct vp_set set = { 0 };
	bool empty = false;
	u64 head[2];
	enum hv_status s = input(c, 0, head, sizeof(head));

	if (s)
		return s;
	if (ex)
		s = read_set(c, sizeof(head), &set, &empty);
	else
		s = input(c, sizeof(head), &set.bank[0], sizeof(set.bank[0]));
	if (s)
		return s;
	/* Windows Server 2012 names no processor when it means all: as KVM. */
	if (head[1] & HV_FLUSH_ALL_PROCESSORS || (!ex && !set.bank[0]))
		set.all = true;
	flush(c->v, &set);
	return HV_SUCCESS;
}

/* ---- IPIs ---- */

static enum hv_status send_ipi(const struct call *c, bool ex)
{
	struct vp_set set = { 0 };
	struct um_vcpu *v;
	bool empty = false;
	u32 head[2]; /* vector; target VTL, which must be 0 */
	enum hv_status s = input(c, 0, head, sizeof(head));
	unsigned i;

	if (s)
		return s;
	if (ex)
		s = read_set(c, sizeof(head), &set, &empty);
	else
		s = input(c, sizeof(head), &set.bank[0], sizeof(set.bank[0]));
	if (s || empty)
		return s;
	if (head[0] < 16 || head[0] > 255 || head[1])
		return HV_INVALID_HYPERCALL_INPUT;
	um_for_each_vcpu(c->v->vm, i, v)
	{
		if (v->lapic && in_set(&set, v))
			um_lapic_fixed(v->lapic, (u8)head[0]);
	}
	return HV_SUCCESS;
}

/* ---- messages and events ---- */

/* HV_INVALID_PORT_ID: nobody here has that connection. */
static enum hv_status signal_event(const struct call *c)
{
	u64 param;
	enum hv_status s = input(c, 0, &param, sizeof(param));

	if (s)
		return s;
	/* Connection, and in bits 47:32 the number of a flag: only flag 0 is an eventfd. */
	if (param & GENMASK(47, 32))
		return HV_INVALID_PORT_ID;
	if (param & ~(u64)KVM_HYPERV_CONN_ID_MASK)
		return HV_INVALID_HYPERCALL_INPUT;
	return um_hv_signal_connection(c->v->vm, (u32)param) ? HV_SUCCESS : HV_INVALID_PORT_ID;
}

/* ---- which call, and may the guest make it? ---- */

static bool is_rep(const struct call *c)
{
	return c->reps || c->rep_start;
}

static bool is_debug(const struct call *c)
{
	return c->code >= HV_CALL_POST_DEBUG_DATA && c->code <= HV_CALL_RESET_DEBUG_SESSION;
}

/* These have inputs of more than 16 bytes. */
static bool needs_xmm(const struct call *c)
{
	switch (c->code) {
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
	case HV_CALL_SEND_IPI_EX:
		return c->fast;
	}
	return false;
}

static bool has_all(u32 bits, u64 wanted)
{
	return (bits & wanted) == wanted;
}

static bool allowed(const struct call *c)
{
	const struct um_hv_vcpu *hv = c->v->hv;

	if (!hv->enforce)
		return true;
	switch (c->code) {
	case HV_CALL_LONG_SPIN_WAIT:
		return hv->spins && hv->spins != HV_SPIN_NEVER;
	case HV_CALL_POST_MESSAGE:
		return hv->privileges & HV_ALLOW_POST_MESSAGES;
	case HV_CALL_SIGNAL_EVENT:
		return hv->privileges & HV_ALLOW_SIGNAL_EVENTS;
	case HV_CALL_POST_DEBUG_DATA:
	case HV_CALL_RETRIEVE_DEBUG_DATA:
	case HV_CALL_RESET_DEBUG_SESSION:
		/* Without a debugger they don't exist at all, which is another status. */
		return !(hv->syndbg & HV_SYNDBG_KERNEL_DEBUGGING) ||
		       hv->privileges & HV_ALLOW_DEBUGGING;
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
		return has_all(hv->hints, HV_HINT_REMOTE_TLB_FLUSH | HV_HINT_EX_PROCESSOR_MASKS);
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
		return hv->hints & HV_HINT_REMOTE_TLB_FLUSH;
	case HV_CALL_SEND_IPI_EX:
		return has_all(hv->hints, HV_HINT_CLUSTER_IPI | HV_HINT_EX_PROCESSOR_MASKS);
	case HV_CALL_SEND_IPI:
		return hv->hints & HV_HINT_CLUSTER_IPI;
	}
	return true;
}

/* Is the input value right for the call: repetitions only where there are some, and so on? */
static bool well_formed(const struct call *c)
{
	bool list = c->code == HV_CALL_FLUSH_LIST || c->code == HV_CALL_FLUSH_LIST_EX;
	bool sets = c->code == HV_CALL_FLUSH_SPACE_EX || c->code == HV_CALL_FLUSH_LIST_EX ||
		    c->code == HV_CALL_SEND_IPI_EX;

	if (c->value & HV_CALL_RESERVED || (c->variable && !sets && !is_debug(c)))
		return false;
	if (list)
		return c->rep_start < c->reps;
	return !is_rep(c) || is_debug(c);
}

static enum outcome to_vmm(const struct call *c)
{
	struct kvm_run *run = c->v->run;

	run->exit_reason = KVM_EXIT_HYPERV;
	memset(&run->hyperv, 0, sizeof(run->hyperv));
	run->hyperv.type = KVM_EXIT_HYPERV_HCALL;
	run->hyperv.u.hcall.input = c->value;
	run->hyperv.u.hcall.params[0] = c->in;
	run->hyperv.u.hcall.params[1] = c->out;
	c->v->user_io = UM_USER_HV_CALL;
	c->v->user_insn_len = (u8)c->v->x.exit.insn_len;
	return TO_VMM;
}

/* The VMM has no message pages to answer in unless there is a SynIC. */
static enum outcome message_to_vmm(const struct call *c, enum hv_status *s)
{
	if (c->v->lapic && um_synic_active(c->v->lapic))
		return to_vmm(c);
	*s = HV_INVALID_HYPERCALL_INPUT;
	return DONE;
}

static enum outcome debug_call(const struct call *c, enum hv_status *s)
{
	struct um_hv_vm *hv = c->v->vm->hv;
	bool on;

	*s = HV_INVALID_HYPERCALL_INPUT;
	if (c->fast && c->code != HV_CALL_RESET_DEBUG_SESSION)
		return DONE;
	pthread_mutex_lock(&hv->lock);
	on = hv->syndbg.options & HV_SYNDBG_USE_HCALLS;
	pthread_mutex_unlock(&hv->lock);
	*s = HV_OPERATION_DENIED;
	return on ? to_vmm(c) : DONE;
}

static bool known(const struct call *c)
{
	switch (c->code) {
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
	case HV_CALL_LONG_SPIN_WAIT:
	case HV_CALL_SEND_IPI:
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
	case HV_CALL_SEND_IPI_EX:
	case HV_CALL_POST_MESSAGE:
	case HV_CALL_SIGNAL_EVENT:
		return true;
	}
	return is_debug(c) && c->v->hv->syndbg & HV_SYNDBG_KERNEL_DEBUGGING;
}

static enum outcome dispatch(const struct call *c, enum hv_status *s)
{
	*s = HV_SUCCESS;
	switch (c->code) {
	case HV_CALL_LONG_SPIN_WAIT:
		sched_yield();
		return DONE;
	case HV_CALL_FLUSH_SPACE:
	case HV_CALL_FLUSH_LIST:
		*s = flush_call(c, false);
		return DONE;
	case HV_CALL_FLUSH_SPACE_EX:
	case HV_CALL_FLUSH_LIST_EX:
		*s = flush_call(c, true);
		return DONE;
	case HV_CALL_SEND_IPI:
	case HV_CALL_SEND_IPI_EX:
		*s = send_ipi(c, c->code == HV_CALL_SEND_IPI_EX);
		return DONE;
	case HV_CALL_SIGNAL_EVENT:
		*s = signal_event(c);
		/* The VMM may know it. */
		return *s == HV_INVALID_PORT_ID ? message_to_vmm(c, s) : DONE;
	case HV_CALL_POST_MESSAGE:
		return message_to_vmm(c, s);
	}
	return debug_call(c, s);
}

static int raise_ud(struct um_vcpu *v)
{
	um_vcpu_queue_exception(v, UM_VEC_UD, false, 0);
	return 1;
}

int um_hv_hypercall(struct um_vcpu *v)
{
	struct call c = get_call(v);
	enum hv_status s;
	u64 result;

	if (v->x.cpu.cpl || !um_cpu_protected(&v->x.cpu) ||
	    (needs_xmm(&c) && v->hv->enforce && !(v->hv->features & HV_FEATURE_XMM_INPUT)))
		return raise_ud(v);
	if (!known(&c))
		s = HV_INVALID_HYPERCALL_CODE;
	else if (!allowed(&c))
		s = HV_ACCESS_DENIED;
	else if (!well_formed(&c))
		s = HV_INVALID_HYPERCALL_INPUT;
	else if (dispatch(&c, &s) == TO_VMM)
		return 0;
	result = s;
	if (!s) /* all of them at once */
		result |= (u64)c.reps << HV_RESULT_REPS_SHIFT;
	set_result(v, result);
	return um_vcpu_retire(v);
}

int um_hv_complete_hypercall(struct um_vcpu *v)
{
	/* The VMM may have looked at other things meanwhile, through the engine. */
	v->x.exit.insn_len = v->user_insn_len;
	set_result(v, v->run->hyperv.u.hcall.result);
	return um_vcpu_retire(v);
}
