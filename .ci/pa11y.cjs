// Accessibility of the book's pages, checked by axe; SCHEME is 1 for light and 0 for dark, as Chromium counts them.
module.exports = {
  defaults: {
    runners: ["axe"],
    // Axe cannot judge the contrast of a single character, or look into a frame, whose page is checked by itself.
    levelCapWhenNeedsReview: "warning",
    viewport: { width: 1280, height: 5000 }, // so that no part of the sidebar is hidden
    useIncognitoBrowserContext: false, // closing one context would close the other one's pages
    concurrency: 2,
    timeout: 120000, // milliseconds
    chromeLaunchConfig: { args: ["--no-sandbox", `--blink-settings=preferredColorScheme=${process.env.SCHEME}`] },
  },
};
