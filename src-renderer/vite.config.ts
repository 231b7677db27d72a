/** The window as a set of files that ask for nothing from elsewhere. Electron and the web host serve the same build. */
import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

export default defineConfig({
  root: import.meta.dirname,
  base: './',
  plugins: [react()],
  // The host puts a fresh nonce in its place each time it serves the page.
  html: { cspNonce: '__CSP_NONCE__' },
  build: {
    outDir: '../dist/renderer',
    emptyOutDir: true,
    target: 'chrome120',
    modulePreload: { polyfill: false },
    // Images and fonts stay files: the policy of the page allows no other source.
    assetsInlineLimit: 0,
    chunkSizeWarningLimit: 1500,
  },
});
