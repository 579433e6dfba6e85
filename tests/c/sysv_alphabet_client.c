/* The textbook's client: reads the letters under a key, and puts a star over the first. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#define SIZE 27

int main(int argc, char **argv)
{
    key_t key = argc > 1 ? atoi(argv[1]) : 5678;
    volatile char *memory = NULL;
    for (int i = 0;; i++) {
        int id = shmget(key, SIZE, 0);
        if (id >= 0) {
            memory = shmat(id, NULL, 0);
            if (memory != (void *)-1 && __atomic_load_n(&memory[25], __ATOMIC_ACQUIRE) == 'z')
                break;
            if (memory != (void *)-1)
                shmdt((void *)memory);
        }
        if (i == 60000) {
            fprintf(stderr, "no server came\n");
            return 1;
        }
        usleep(1000);
    }
    printf("client: received \"");
    for (int i = 0; i < 26; i++)
        putchar(memory[i]);
    printf("\"\n");
    *memory = '*';
    return shmdt((void *)memory) < 0;
}
