// Prints what the processor says of itself: the words AT_HWCAP and AT_HWCAP2 that Linux gives a process, and its number MIDR_EL1, in hexadecimal.
#include <asm/hwcap.h>
#include <sys/auxv.h>

#include <cstdio>

int main() {
    const unsigned long words = getauxval(AT_HWCAP);
    unsigned long midr = 0;
    if (words & HWCAP_CPUID) asm("mrs %0, midr_el1" : "=r"(midr));
    std::printf("%lx %lx %lx\n", words, getauxval(AT_HWCAP2), midr);
}
