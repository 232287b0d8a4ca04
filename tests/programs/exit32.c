/* A 32-bit program without a library that only ends, with status 0. */
void _start(void) { __asm__ volatile("movl $1, %eax; xorl %ebx, %ebx; int $0x80"); }
