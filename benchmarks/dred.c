/* Like fargan_demo of the Opus library, but the features pass through the autoencoder of DRED, so that the copy is that of a neural codec:
   dred_demo -features speech.pcm features.f32; dred_demo -fargan-synthesis features.f32 copy.pcm
   Source: Valin et al., ICASSP 2023 (arXiv 2212.04453). As in Opus, at most 26 latent vectors (1.04 s) are decoded, backwards, from the
   state at their end. The latent vectors are quantised at LEVEL (0 to 15), of which Opus uses 6 and above. fargan.sh builds this. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "arch.h"
#include "cpu_support.h"
#include "dred_rdovae_dec.h"
#include "dred_rdovae_dec_data.h"
#include "dred_rdovae_enc.h"
#include "dred_rdovae_enc_data.h"
#include "dred_rdovae_stats_data.h"
#include "fargan.h"
#include "lpcnet.h"
#include "os_support.h"

#ifndef LEVEL
#define LEVEL 6
#endif
#define FRAME 160
#define KEPT DRED_NUM_FEATURES
#define ALL NB_TOTAL_FEATURES
#define CHUNK 52 /* pairs of frames; every other one has a latent vector that is decoded */
#define ROOM 64

extern const WeightArray rdovaeenc_arrays[];
extern const WeightArray rdovaedec_arrays[];

static void *zeros(size_t count, size_t size) {
    void *found = calloc(count, size);
    if (found == NULL) {
        fprintf(stderr, "no memory\n");
        exit(1);
    }
    return found;
}

static void quantise(float *x, const opus_uint8 *scale, const opus_uint8 *zone, const opus_uint8 *r, const opus_uint8 *p0, int count) {
    for (int i = 0; i < count; i++) {
        float width = zone[i] / 256.f;
        float scaled = x[i] * scale[i] / 256.f;
        int level = (int)floorf(.5f + scaled - width * tanhf(scaled / (width + .1f)));
        x[i] = r[i] == 0 || p0[i] == 255 || scale[i] == 0 ? 0 : level * 256.f / scale[i];
    }
}

static void code(float (*features)[ALL], long frames, int arch) {
    RDOVAEEnc encoder;
    RDOVAEDec decoder;
    RDOVAEEncState encoding;
    long pairs = frames / 2;
    int first_latent = LEVEL * DRED_LATENT_DIM, first_state = LEVEL * DRED_STATE_DIM;
    float (*latents)[ROOM] = zeros(pairs, sizeof *latents);
    float (*states)[ROOM] = zeros(pairs, sizeof *states);
    if (init_rdovaeenc(&encoder, rdovaeenc_arrays) || init_rdovaedec(&decoder, rdovaedec_arrays)) exit(1);
    memset(&encoding, 0, sizeof encoding);
    for (long pair = 0; pair < pairs; pair++) {
        float given[2 * KEPT];
        memcpy(given, features[2 * pair], KEPT * sizeof(float));
        memcpy(given + KEPT, features[2 * pair + 1], KEPT * sizeof(float));
        dred_rdovae_encode_dframe(&encoding, &encoder, latents[pair], states[pair], given, arch);
    }
    for (long end = pairs; end > 0; end -= CHUNK) {
        RDOVAEDecState decoding;
        memset(&decoding, 0, sizeof decoding);
        quantise(states[end - 1], dred_state_quant_scales_q8 + first_state, dred_state_dead_zone_q8 + first_state,
                 dred_state_r_q8 + first_state, dred_state_p0_q8 + first_state, DRED_STATE_DIM);
        dred_rdovae_dec_init_states(&decoding, &decoder, states[end - 1], arch);
        for (long pair = end - 1; pair >= 1 && pair >= end - CHUNK; pair -= 2) {
            float made[4 * KEPT + ROOM];
            quantise(latents[pair], dred_latent_quant_scales_q8 + first_latent, dred_latent_dead_zone_q8 + first_latent,
                     dred_latent_r_q8 + first_latent, dred_latent_p0_q8 + first_latent, DRED_LATENT_DIM);
            dred_rdovae_decode_qframe(&decoding, &decoder, made, latents[pair], arch);
            for (int back = 0; back < 4; back++) memcpy(features[2 * pair + 1 - back], made + back * KEPT, KEPT * sizeof(float));
        }
    }
    free(latents);
    free(states);
}

static void *contents(const char *path, long *size) {
    FILE *file = fopen(path, "rb");
    if (file == NULL || fseek(file, 0, SEEK_END) != 0) {
        fprintf(stderr, "%s: cannot be read\n", path);
        exit(1);
    }
    *size = ftell(file);
    rewind(file);
    void *found = zeros(*size + 1, 1);
    if (fread(found, 1, *size, file) != (size_t)*size) exit(1);
    fclose(file);
    return found;
}

int main(int count, char **names) {
    int arch = opus_select_arch();
    long size;
    if (count != 4) return 1;
    void *given = contents(names[2], &size);
    FILE *file = fopen(names[3], "wb");
    if (file == NULL) return 1;
    if (strcmp(names[1], "-features") == 0) {
        long frames = size / 2 / FRAME / 4 * 4; /* a latent vector stands for four frames */
        float (*features)[ALL] = zeros(frames + 1, sizeof *features);
        LPCNetEncState *analysis = lpcnet_encoder_create();
        for (long frame = 0; frame < frames; frame++)
            lpcnet_compute_single_frame_features(analysis, (opus_int16 *)given + frame * FRAME, features[frame], arch);
        lpcnet_encoder_destroy(analysis);
        code(features, frames, arch);
        fwrite(features, sizeof *features, frames, file);
        free(features);
    } else {
        float (*features)[ALL] = given;
        float silence[2 * FRAME] = {0}, history[5 * KEPT + ROOM];
        long frames = size / (long)sizeof *features;
        FARGANState state;
        fargan_init(&state);
        for (int frame = 0; frame < 5; frame++) memcpy(history + frame * KEPT, features[frame], KEPT * sizeof(float));
        fargan_cont(&state, silence, history);
        for (long frame = 5; frame < frames; frame++) {
            float made[FRAME];
            opus_int16 samples[FRAME];
            fargan_synthesize(&state, made, features[frame]);
            for (int i = 0; i < FRAME; i++) samples[i] = (opus_int16)floorf(.5f + MIN32(32767, MAX32(-32767, 32768.f * made[i])));
            fwrite(samples, sizeof *samples, FRAME, file);
        }
    }
    free(given);
    return fclose(file) != 0;
}
