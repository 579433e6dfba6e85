/* A program that knows pthread_mutex_t, and of tombolo nothing but where the mutex and its data lie.
 *
 *   mutex <object> <offset of the mutex> <offset of the holder's word> <offset of the data> <command> [<number>]
 *
 *   add N      N times: lock, add 1 to both numbers, unlock
 *   hold       lock, add 1 to the first number only, say so, and sleep until killed
 *   name       as hold, with our process id in the holder's word
 *   repair     lock after a holder's death, make both numbers equal to the first, and say what they are
 *   pass       lock after a holder's death, and leave it poisoned for others to repair
 *   busy       try to lock what another one holds
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define SOUND 0
#define OWNER_DIED 1

struct data {
    uint64_t first, second;
};

static void fail(const char *what, int error)
{
    fprintf(stderr, "%s: %s\n", what, strerror(error));
    exit(1);
}

static int lock(pthread_mutex_t *mutex)
{
    struct timespec limit;
    clock_gettime(CLOCK_MONOTONIC, &limit);
    limit.tv_sec += 30;
    int answer = pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &limit);
    if (answer != 0 && answer != EOWNERDEAD)
        fail("lock", answer);
    return answer;
}

int main(int argc, char **argv)
{
    if (argc < 6)
        fail("arguments", EINVAL);
    int fd = shm_open(argv[1], O_RDWR, 0);
    if (fd < 0)
        fail("shm_open", errno);
    struct stat status;
    if (fstat(fd, &status) != 0)
        fail("fstat", errno);
    char *segment = mmap(NULL, (size_t)status.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (segment == MAP_FAILED)
        fail("mmap", errno);
    close(fd);
    pthread_mutex_t *mutex = (pthread_mutex_t *)(segment + strtoull(argv[2], NULL, 10));
    uint32_t *holder = (uint32_t *)(segment + strtoull(argv[3], NULL, 10));
    uint32_t *poison = holder + 1;
    volatile struct data *data = (struct data *)(segment + strtoull(argv[4], NULL, 10));
    const char *command = argv[5];

    if (strcmp(command, "add") == 0) {
        for (long left = atol(argv[6]); left > 0; left--) {
            if (lock(mutex) != 0 || *poison != SOUND)
                fail("nobody died", EINVAL);
            data->first += 1;
            data->second += 1;
            pthread_mutex_unlock(mutex);
        }
    } else if (strcmp(command, "hold") == 0 || strcmp(command, "name") == 0) {
        if (lock(mutex) != 0)
            fail("nobody died", EINVAL);
        if (strcmp(command, "name") == 0)
            *holder = (uint32_t)getpid();
        data->first += 1;
        printf("held\n");
        fflush(stdout);
        for (;;)
            pause();
    } else if (strcmp(command, "repair") == 0) {
        if (lock(mutex) != EOWNERDEAD)
            fail("somebody died", EINVAL);
        printf("%llu %llu %u\n", (unsigned long long)data->first, (unsigned long long)data->second, *holder);
        data->second = data->first;
        *holder = 0;
        pthread_mutex_consistent(mutex);
        pthread_mutex_unlock(mutex);
    } else if (strcmp(command, "pass") == 0) {
        if (lock(mutex) != EOWNERDEAD)
            fail("somebody died", EINVAL);
        holder[2] = *holder; /* the culprit's word */
        *poison = OWNER_DIED;
        *holder = 0;
        pthread_mutex_consistent(mutex);
        pthread_mutex_unlock(mutex);
    } else if (strcmp(command, "busy") == 0) {
        int answer = pthread_mutex_trylock(mutex);
        if (answer != EBUSY)
            fail("held by another", answer);
    } else {
        fail(command, EINVAL);
    }
    return 0;
}
