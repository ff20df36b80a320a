// SPDX-License-Identifier: MIT

// A KVM client in Go: no C library, goroutines that move between threads, small stacks, preemption by signals.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"unsafe"
)

// <linux/kvm.h>
const (
	getAPIVersion = 0xae00
	createVM      = 0xae01
	vcpuMmapSize  = 0xae04
	createVcpu    = 0xae41
	run           = 0xae80
	setMemory     = 0x4020ae46
	setRegs       = 0x4090ae82
	getSregs      = 0x8138ae83
	setSregs      = 0x4138ae84

	exitIO = 2
	exits  = 5000
	vcpus  = 4
)

type memoryRegion struct {
	slot, flags       uint32
	gpa, size, userva uint64
}

func check(ok bool, what string, args ...interface{}) {
	if !ok {
		fmt.Fprintln(os.Stderr, append([]interface{}{"supervised-go:", what}, args...)...)
		os.Exit(1)
	}
}

func ioctl(fd, req uintptr, arg uintptr) uintptr {
	r, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, req, arg)
	check(e == 0, "ioctl", req, e)
	return r
}

func vcpu(vm uintptr, id int, size uintptr) {
	runtime.LockOSThread()
	fd := ioctl(vm, createVcpu, uintptr(id))
	shared, err := syscall.Mmap(int(fd), 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	check(err == nil, "mmap", err)
	var sregs [0x138]byte
	ioctl(fd, getSregs, uintptr(unsafe.Pointer(&sregs[0])))
	for _, i := range []int{0, 1, 2, 3, 4, 5, 6, 7, 12, 13} { // base and selector of CS
		sregs[i] = 0
	}
	ioctl(fd, setSregs, uintptr(unsafe.Pointer(&sregs[0])))
	regs := [18]uint64{16: 0x1000, 17: 2} // rip, rflags
	ioctl(fd, setRegs, uintptr(unsafe.Pointer(&regs[0])))
	for n := 1; n < exits; {
		_, _, e := syscall.Syscall(syscall.SYS_IOCTL, fd, run, 0)
		if e == syscall.EINTR { // Go's own signals
			continue
		}
		check(e == 0, "KVM_RUN", e)
		check(shared[8] == exitIO, "exit", shared[8])
		offset := *(*uint64)(unsafe.Pointer(&shared[40]))
		check(shared[offset] == byte(n), "value", shared[offset], n)
		n++
	}
}

func main() {
	if len(os.Args) > 1 {
		os.Exit(7)
	}
	kvm, err := syscall.Open("/dev/kvm", syscall.O_RDWR|syscall.O_CLOEXEC, 0)
	check(err == nil, "open", err)
	check(ioctl(uintptr(kvm), getAPIVersion, 0) == 12, "version")
	vm := ioctl(uintptr(kvm), createVM, 0)
	mem, err := syscall.Mmap(-1, 0, 0x10000, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANONYMOUS)
	check(err == nil, "mmap", err)
	copy(mem[0x1000:], []byte{0xfe, 0xc0, 0xe6, 0x10, 0xeb, 0xfa}) // inc al; out 0x10, al; jmp back
	region := memoryRegion{size: 0x10000, userva: uint64(uintptr(unsafe.Pointer(&mem[0])))}
	ioctl(vm, setMemory, uintptr(unsafe.Pointer(&region)))
	size := ioctl(uintptr(kvm), vcpuMmapSize, 0)
	var all sync.WaitGroup
	for id := 0; id < vcpus; id++ {
		all.Add(1)
		go func(id int) {
			defer all.Done()
			vcpu(vm, id, size)
		}(id)
	}
	for i := 0; i < 100; i++ { // the garbage collector stops all threads
		junk := make([]byte, 1<<20)
		junk[i] = 1
		runtime.GC()
	}
	all.Wait()
	err = exec.Command("/proc/self/exe", "child").Run()
	status, ok := err.(*exec.ExitError)
	check(ok && status.ExitCode() == 7, "child", err)
	check(exec.Command("/bin/sh", "-c", "test -c /dev/kvm").Run() == nil, "child with the preload")
}
