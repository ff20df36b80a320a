// SPDX-License-Identifier: MIT
/*
 * From a system instruction to its function: one row a mnemonic, in the groups of the files.  MOV,
 * PUSH, POP, JMP, CALL and RET are the system's only in some of their forms; those are picked by
 * operand kind.
 *
 * Instructions of extensions that umbra does not offer (VMX, SMX, SGX, WAITPKG, ...) have rows that
 * say #UD; what has no row at all is left to the native stubs.
 */
#include "engine/interp/interp.h"
#include "engine/system/system.h"

#define M(name)	 ZYDIS_MNEMONIC_##name
#define OP(name) um_sysop_##name

static const um_insn_fn table[ZYDIS_MNEMONIC_MAX_VALUE + 1] = {
	/* segment registers */
	[M(LES)] = OP(load_far_pointer),
	[M(LDS)] = OP(load_far_pointer),
	[M(LSS)] = OP(load_far_pointer),
	[M(LFS)] = OP(load_far_pointer),
	[M(LGS)] = OP(load_far_pointer),

	/* events and returns */
	[M(INT)] = OP(int),
	[M(INT3)] = OP(int3),
	[M(INTO)] = OP(into),
	[M(INT1)] = OP(int1),
	[M(IRET)] = OP(iret),
	[M(IRETD)] = OP(iret),
	[M(IRETQ)] = OP(iret),

	/* system calls, FS and GS */
	[M(SYSCALL)] = OP(syscall),
	[M(SYSRET)] = OP(sysret),
	[M(SYSENTER)] = OP(sysenter),
	[M(SYSEXIT)] = OP(sysexit),
	[M(SWAPGS)] = OP(swapgs),
	[M(RDFSBASE)] = OP(rdfsbase),
	[M(RDGSBASE)] = OP(rdgsbase),
	[M(WRFSBASE)] = OP(wrfsbase),
	[M(WRGSBASE)] = OP(wrgsbase),

	/* control registers, TLB */
	[M(LMSW)] = OP(lmsw),
	[M(SMSW)] = OP(smsw),
	[M(CLTS)] = OP(clts),
	[M(INVLPG)] = OP(invlpg),
	[M(INVPCID)] = OP(invpcid),

	/* descriptor tables */
	[M(LGDT)] = OP(lgdt),
	[M(LIDT)] = OP(lidt),
	[M(SGDT)] = OP(sgdt),
	[M(SIDT)] = OP(sidt),
	[M(LLDT)] = OP(lldt),
	[M(SLDT)] = OP(sldt),
	[M(LTR)] = OP(ltr),
	[M(STR)] = OP(str),

	/* checks */
	[M(LAR)] = OP(lar),
	[M(LSL)] = OP(lsl),
	[M(VERR)] = OP(verr),
	[M(VERW)] = OP(verw),
	[M(ARPL)] = OP(arpl),

	/* ports */
	[M(IN)] = OP(in),
	[M(OUT)] = OP(out),
	[M(INSB)] = OP(ins),
	[M(INSW)] = OP(ins),
	[M(INSD)] = OP(ins),
	[M(OUTSB)] = OP(outs),
	[M(OUTSW)] = OP(outs),
	[M(OUTSD)] = OP(outs),

	/* flags, waiting, time, identification */
	[M(CLI)] = OP(cli),
	[M(STI)] = OP(sti),
	[M(STAC)] = OP(stac),
	[M(CLAC)] = OP(clac),
	[M(HLT)] = OP(hlt),
	[M(MONITOR)] = OP(monitor),
	[M(MWAIT)] = OP(mwait),
	[M(RDTSC)] = OP(rdtsc),
	[M(RDTSCP)] = OP(rdtscp),
	[M(RDPID)] = OP(rdpid),
	[M(RDPMC)] = OP(rdpmc),
	[M(CPUID)] = OP(cpuid),
	[M(RDMSR)] = OP(rdmsr),
	[M(WRMSR)] = OP(wrmsr),

	/* caches */
	[M(INVD)] = OP(wbinvd),
	[M(WBINVD)] = OP(wbinvd),
	[M(CLFLUSH)] = OP(clflush),
	[M(CLFLUSHOPT)] = OP(clflushopt),
	[M(CLWB)] = OP(clwb),
	[M(CLDEMOTE)] = OP(cldemote),
	[M(SERIALIZE)] = OP(serialize),

	/* hypervisors, SMM */
	[M(VMCALL)] = OP(hypercall),
	[M(VMMCALL)] = OP(hypercall),
	[M(VMRUN)] = OP(svm),
	[M(VMLOAD)] = OP(svm),
	[M(VMSAVE)] = OP(svm),
	[M(STGI)] = OP(svm),
	[M(CLGI)] = OP(svm),
	[M(SKINIT)] = OP(svm),
	[M(INVLPGA)] = OP(svm),
	[M(RSM)] = OP(rsm),

	/* not offered */
	[M(VMCLEAR)] = OP(ud),
	[M(VMLAUNCH)] = OP(ud),
	[M(VMRESUME)] = OP(ud),
	[M(VMPTRLD)] = OP(ud),
	[M(VMPTRST)] = OP(ud),
	[M(VMREAD)] = OP(ud),
	[M(VMWRITE)] = OP(ud),
	[M(VMXON)] = OP(ud),
	[M(VMXOFF)] = OP(ud),
	[M(VMFUNC)] = OP(ud),
	[M(INVEPT)] = OP(ud),
	[M(INVVPID)] = OP(ud),
	[M(GETSEC)] = OP(ud),
	[M(ENCLS)] = OP(ud),
	[M(ENCLU)] = OP(ud),
	[M(ENCLV)] = OP(ud),
	[M(PCONFIG)] = OP(ud),
	[M(ENQCMD)] = OP(ud),
	[M(ENQCMDS)] = OP(ud),
	[M(UMONITOR)] = OP(ud),
	[M(UMWAIT)] = OP(ud),
	[M(TPAUSE)] = OP(ud),
	[M(MONITORX)] = OP(ud),
	[M(MWAITX)] = OP(ud),
	[M(RDPRU)] = OP(ud),
	[M(HRESET)] = OP(ud),
	[M(LOADIWKEY)] = OP(ud),
	[M(CLUI)] = OP(ud),
	[M(STUI)] = OP(ud),
	[M(TESTUI)] = OP(ud),
	[M(UIRET)] = OP(ud),
	[M(SENDUIPI)] = OP(ud),
	[M(SEAMCALL)] = OP(ud),
	[M(SEAMOPS)] = OP(ud),
	[M(SEAMRET)] = OP(ud),
	[M(TDCALL)] = OP(ud),
	[M(PSMASH)] = OP(ud),
	[M(PVALIDATE)] = OP(ud),
	[M(RMPADJUST)] = OP(ud),
	[M(RMPUPDATE)] = OP(ud),
	[M(INVLPGB)] = OP(ud),
	[M(TLBSYNC)] = OP(ud),
	[M(MCOMMIT)] = OP(ud),
};

/* MOV to and from segment, control and debug registers. */
static um_insn_fn bind_mov(const struct um_insn *i)
{
	switch (i->kind[0]) {
	case UM_OPD_SEG:
		return OP(mov_to_sreg);
	case UM_OPD_CR:
		return OP(mov_to_cr);
	case UM_OPD_DR:
		return OP(mov_to_dr);
	}
	switch (i->kind[1]) {
	case UM_OPD_SEG:
		return OP(mov_from_sreg);
	case UM_OPD_CR:
		return OP(mov_from_cr);
	case UM_OPD_DR:
		return OP(mov_from_dr);
	}
	return NULL;
}

um_insn_fn um_system_bind(struct um_exec *x, const struct um_insn *i)
{
	switch (i->op) {
	case M(MOV):
		return bind_mov(i);
	case M(PUSH):
		return i->kind[0] == UM_OPD_SEG ? OP(push_sreg) : NULL;
	case M(POP):
		return i->kind[0] == UM_OPD_SEG ? OP(pop_sreg) : NULL;
	case M(JMP):
		return i->flags & UM_INSN_FAR ? OP(far_jmp) : NULL;
	case M(CALL):
		return i->flags & UM_INSN_FAR ? OP(far_call) : NULL;
	case M(RET):
		return i->flags & UM_INSN_FAR ? OP(far_ret) : NULL;
	}
	return i->op < ARRAY_SIZE(table) ? table[i->op] : NULL;
}
