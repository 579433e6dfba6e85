/* The textbook's server: 27 bytes under a key, 'a' to 'z', until the client answers with a star. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ipc.h>
#include <sys/shm.h>
#include <unistd.h>

#define SIZE 27

int main(int argc, char **argv)
{
    key_t key = argc > 1 ? atoi(argv[1]) : 5678;
    int id = shmget(key, SIZE, IPC_CREAT | 0600);
    if (id < 0) {
        perror("shmget");
        return 1;
    }
    volatile char *memory = shmat(id, NULL, 0);
    if (memory == (void *)-1) {
        perror("shmat");
        return 1;
    }
    volatile char *s = memory;
    memset((void *)memory, 0, SIZE);
    for (char c = 'a'; c <= 'z'; c++)
        __atomic_store_n(s++, c, __ATOMIC_RELEASE);
    *s = 0;
    printf("server: 'a' to 'z' are in segment %d\n", id);
    fflush(stdout);
    for (int i = 0; *memory != '*'; i++) {
        if (i == 60000) {
            fprintf(stderr, "no client came\n");
            shmctl(id, IPC_RMID, NULL);
            return 1;
        }
        usleep(1000);
    }
    printf("server: the client has them all\n");
    shmdt((void *)memory);
    return shmctl(id, IPC_RMID, NULL) < 0;
}
